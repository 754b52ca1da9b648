"""Count what Python files define, with Python's own parser.

A plain module: nothing here knows that it may be called from Rust.
"""

from __future__ import annotations

import ast
import os
import sysconfig
import warnings

__all__ = ["census", "stdlib_files"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# What Python says of a file that is not Python, or not Python it can take: not
# the grammar (SyntaxError, with IndentationError and TabError), a null byte
# (ValueError before 3.12), bytes that are not in the declared encoding
# (UnicodeDecodeError is a ValueError), deeper than the parser's own limits
# (RecursionError; older parsers say MemoryError "s_push: parser stack overflow").
# A file that cannot be read is no refusal: its OSError is the caller's to see.
_REFUSALS = (SyntaxError, ValueError, RecursionError, MemoryError)


def census(path: str) -> dict[str, int | str]:
    """Count the functions, classes and documented ones that a file defines, at any depth.

    A file that Python's parser refuses gives ``{"refused": message}`` instead.
    """
    with open(path, "rb") as file:
        source = file.read()
    try:
        # The tests of the standard library hold much that is warned about.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, path)
    except _REFUSALS as refusal:
        return {"refused": f"{type(refusal).__name__}: {refusal}"}

    functions = classes = documented = 0
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS):
            functions += 1
        elif isinstance(node, ast.ClassDef):
            classes += 1
        else:
            continue
        documented += ast.get_docstring(node, clean=False) is not None
    return {"functions": functions, "classes": classes, "documented": documented}


def stdlib_files() -> list[str]:
    """Every .py file of this interpreter's standard library, its tests included, in a fixed order.

    Installed packages are no part of it. Symbolic links to folders are not followed, so no file comes twice.
    """
    found = []
    for folder, folders, files in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = [
            name
            for name in folders
            if name not in ("site-packages", "dist-packages", "__pycache__")
        ]
        found += [os.path.join(folder, name) for name in files if name.endswith(".py")]
    return sorted(found)
