"""Lets child processes import this package, which a worker has in memory only. `_worker` and `_zygote` call it.

The package is a zip archive in an unnamed file, and `/proc/PID/fd/N` is its path. So nothing must be cleaned up, nobody
else can write to it, and it works on a read-only file system. `multiprocessing` passes `sys.path` to its children;
other child processes inherit `PYTHONPATH`.
"""

from __future__ import annotations

import os
import sys

_FOLDERS = ("/dev/shm", "/tmp")  # noqa: S108 - for a file without a name
_fd = -1
_path = ""


def make_importable(archive: bytes) -> None:
    """Make the package importable in child processes, if the system allows it."""
    global _fd  # noqa: PLW0603 - there is one archive
    _fd = _anonymous_file()
    if _fd < 0:
        return
    rest = memoryview(archive)
    try:
        while rest:
            rest = rest[os.write(_fd, rest) :]
    except OSError:  # a limit on file size
        os.close(_fd)
        _fd = -1
        return
    _publish()


def forked() -> None:
    """Update the path in a forked worker, whose process id is another one."""
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
    # This process has the package in memory, so imports here skip the archive.
    sys.path_importer_cache.pop(_path, None)
    sys.path_importer_cache[path] = None
    _path = path


def _put(folders: list[str], path: str) -> None:
    if _path in folders:
        folders[folders.index(_path)] = path
    else:
        folders.insert(0, path)


def _anonymous_file() -> int:
    """Return the descriptor of a new unnamed file, or -1."""
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
