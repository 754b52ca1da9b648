"""The census of the standard library by one Python process, to compare with the pool's.

Run: python3 examples/python/single_process.py
"""

import json

from stdlib_census import census, stdlib_files


def main() -> None:
    """Print one line of JSON: the totals over all files."""
    totals = {"files": 0, "functions": 0, "classes": 0, "refused": 0}
    for path in stdlib_files():
        counted = census(path)
        totals["files"] += 1
        if "refused" in counted:
            totals["refused"] += 1
        else:
            totals["functions"] += counted["functions"]
            totals["classes"] += counted["classes"]
    print(json.dumps(totals, separators=(",", ":")))


if __name__ == "__main__":
    main()
