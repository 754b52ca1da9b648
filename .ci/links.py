"""Checks the links of the guides, in the repository and in rustdoc's output, and that each public type has an example.

    python3 .ci/links.py target/doc/hatchery

Pages outside of the given folder and of the repository are not asked for. Standard library only.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TYPES = re.compile(r"(struct|enum|trait|macro)\..+\.html$")


class Page(HTMLParser):
    """The links and anchors of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.anchors.add(values["id"] or "")
        if tag == "a" and values.get("href"):
            self.links.append(values["href"] or "")


def broken_in_rustdoc(root: Path) -> list[str]:
    pages = {path.resolve(): Page(path) for path in sorted(root.rglob("*.html"))}
    problems = []
    for path, page in pages.items():
        for link in page.links:
            # A path with `::` stands in a dependency's text, on a trait's method. Rustdoc itself refuses ours.
            if urlsplit(link).scheme or "::" in link:
                continue
            target, anchor = urldefrag(link)
            found = (path.parent / unquote(target)).resolve() if target else path
            if found.is_dir():
                found = found / "index.html"
            if not found.exists():
                problems.append(f"{path}: {link}: no such page")
            # A source page makes the anchors of its ranges of lines by script.
            elif anchor and "src" not in found.parts and found in pages:
                if not {anchor, unquote(anchor)} & pages[found].anchors:
                    problems.append(f"{path}: {link}: no such anchor")
    return problems


def without_example(root: Path) -> list[str]:
    problems = []
    for path in sorted(root.rglob("*.html")):
        text = path.read_text()
        # Rustdoc leaves a page that only leads to another one where an item is not public.
        if TYPES.search(path.name) and 'http-equiv="refresh"' not in text:
            # The item's own documentation comes before the sections of its fields, variants and methods.
            own = re.split(r'<h2 id="(?:fields|variants|implementations|required-|provided-|trait-)', text)[0]
            if 'class="rust rust-example-rendered"' not in own:
                problems.append(f"{path.relative_to(root)}: no example")
    return problems


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.*)$", without_code(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code(page: Path) -> str:
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text())


def broken_in_repository() -> list[str]:
    problems = []
    for page in PAGES:
        text = without_code(page)
        inline = re.findall(r"\]\(([^)\s]+)\)", text)
        defined = dict(re.findall(r"(?m)^\[([^\]]+)\]: (\S+)$", text))
        for label in re.findall(r"\]\[([^\]\n]+)\]", re.sub(r"`[^`\n]*`", "", text)):
            if label not in defined:
                problems.append(f"{page}: [{label}] is not defined at the page's end")
        for link in inline + list(defined.values()):
            if urlsplit(link).scheme:
                continue
            target, anchor = urldefrag(link)
            found = (page.parent / target).resolve() if target else page
            if link in inline and target:
                problems.append(f"{page}: {link}: write [text][label], and add the label to src/guide.rs")
            elif not found.exists():
                problems.append(f"{page}: {link}: no such file")
            elif anchor and anchor not in anchors_of(found):
                problems.append(f"{page}: {link}: no such heading")
    return problems


def main() -> int:
    root = Path(sys.argv[1])
    if not (root / "index.html").exists():
        print(f"{root} has no documentation: run `cargo doc --no-deps --all-features` first")
        return 1
    problems = broken_in_repository() + broken_in_rustdoc(root) + without_example(root)
    print("\n".join(problems))
    print(f"{len(problems)} problems in the documentation")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
