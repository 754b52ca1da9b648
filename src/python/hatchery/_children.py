"""Lets child processes import this package, which a worker has in memory only.

The package is written as a zip archive to a file without a name, and `/proc/PID/fd/N` is the path that child processes
find it by. So there is nothing to clean up, no folder that others can write to, and it works on a read-only system.
`multiprocessing` hands `sys.path` to its children; other ones inherit `PYTHONPATH`.
"""

from __future__ import annotations

import os
import sys

_FOLDERS = ("/dev/shm", "/tmp")  # noqa: S108 - for a file without a name
_fd = -1
_path = ""


def lend(archive: bytes) -> None:
    """Make the package importable in child processes, as far as the system lets us."""
    global _fd  # noqa: PLW0603 - there is one archive
    _fd = _anonymous_file()
    if _fd < 0:
        return
    rest = memoryview(archive)
    try:
        while rest:
            rest = rest[os.write(_fd, rest) :]
    except OSError:  # a limit of the size of files
        os.close(_fd)
        _fd = -1
        return
    _publish()


def forked() -> None:
    """Name the file in a forked worker, whose path is another one."""
    if _fd >= 0:
        _publish()


def _publish() -> None:
    global _path  # noqa: PLW0603
    path = f"/proc/{os.getpid()}/fd/{_fd}"
    if not os.path.exists(path):
        return
    _put(sys.path, path)
    given = os.environ.get("PYTHONPATH")
    folders = given.split(os.pathsep) if given else []
    _put(folders, path)
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    # This process has the package from elsewhere: no import need look into the archive.
    sys.path_importer_cache.pop(_path, None)
    sys.path_importer_cache[path] = None
    _path = path


def _put(folders: list[str], path: str) -> None:
    if _path in folders:
        folders[folders.index(_path)] = path
    else:
        folders.insert(0, path)


def _anonymous_file() -> int:
    """Return the descriptor of a file without a name, or -1."""
    try:
        return os.memfd_create("hatchery-package", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        pass  # this Python was built on an old system
    for folder in _FOLDERS:
        try:
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except (AttributeError, OSError):
            continue
    return -1
