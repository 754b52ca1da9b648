"""Takes the package from fd 0 and becomes a worker.

The host runs `PYTHON -c STUB NAME`; the stub reads this file from fd 0 and runs it.
"""

import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]  # the current directory must not shadow the standard library

import marshal
import os
from _frozen_importlib_external import MAGIC_NUMBER

EXIT_WRONG_PACKAGE = 78


def _take(size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit(0)  # the host went away before it had sent everything
        data += part
    return data


def _boot() -> bytes:
    """Make the package importable here. Returns it as an archive, from which child processes import it."""
    package = _take(int.from_bytes(_take(4), "big"))
    if package[:4] != MAGIC_NUMBER:
        sys.stderr.write("hatchery: this package was compiled by another Python than " + sys.executable + "\n")
        sys.exit(EXIT_WRONG_PACKAGE)
    codes, archive = marshal.loads(package[4:])
    finder = {"__name__": "hatchery._embedded"}
    exec(codes["hatchery._embedded"], finder)
    finder["install"](codes)  # type: ignore[operator]
    return archive  # type: ignore[no-any-return]


_archive = _boot()
from hatchery._worker import main  # noqa: E402

main(_archive)
