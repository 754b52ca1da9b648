"""Takes descriptors and the package from fd 0 and becomes a worker.

The host runs `PYTHON -c STUB NAME`. The stub takes the current directory from the search path, since it must not shadow
the standard library; then it reads this file from fd 0 and runs it. `m` is the stub's first message: with it come the
worker's descriptors.
"""

import _socket
import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    m: tuple[bytes, list[tuple[int, int, bytes]], int, Any]

EXIT_CONNECTION = 74
EXIT_WRONG_PACKAGE = 78
# How many numbers are tried without /proc, if the process may have so many.
MOST_TRIED = 65536


def _close_inherited() -> None:
    """Close what the host, or a program between it and Python, left open for this process: it is not for a worker.

    Only what is inheritable has come through the start of a program. All that Python opens is not.
    """
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        limit = os.sysconf("SC_OPEN_MAX")
        numbers = list(range(MOST_TRIED if limit < 0 else min(limit, MOST_TRIED)))
    for fd in numbers:
        try:
            if fd > 2 and os.get_inheritable(fd):
                os.close(fd)
        except OSError:
            continue  # it is not open


def _descriptors() -> list[int]:
    """Return the worker's own descriptors."""
    _, messages, flags, _ = m  # noqa: F821 - the stub has set it
    if flags & _socket.MSG_CTRUNC:
        sys.stderr.write("hatchery: a worker's descriptors got lost: it may open too few files (see `ulimit -n`)\n")
        sys.exit(EXIT_CONNECTION)
    return [fd for _, _, rights in messages for fd in memoryview(rights).cast("i")]


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


_close_inherited()
_own = _descriptors()
_archive = _boot()
from hatchery._worker import main  # noqa: E402

main(_archive, _own)
