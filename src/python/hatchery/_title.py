"""Sets what `ps` and `top` show of a worker or template: its name and its state. `_worker` and `_zygote` call it.

The name (`ps -o comm`) has 15 bytes. The title (`ps -o args`) overwrites the command line in this process's memory. The
state changes at start and end only: to show each call would slow down every call.
"""

from __future__ import annotations

import os

_COMM_BYTES = 15
# Indexes of fields in /proc/self/stat, counted after the name.
_ARG_START, _ARG_END = 45, 46
_last: bytes | None = None


def show(name: str, state: str) -> None:
    """Set name and title, if the system allows it."""
    _set_name(name)
    try:
        _set_title(f"hatchery: {name} ({state})".encode("utf-8", "replace"))
    except (OSError, ValueError, IndexError):
        pass  # /proc is missing or read-only; the command line has the name too


def _set_name(name: str) -> None:
    try:
        fd = os.open("/proc/self/comm", os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(fd, _cut(name.encode("utf-8", "replace")))
    except OSError:
        pass
    finally:
        os.close(fd)


def _cut(name: bytes) -> bytes:
    """Shorten the pool's part of a name and keep the worker's number, which tells workers apart."""
    if len(name) <= _COMM_BYTES:
        return name
    pool, dash, number = name.rpartition(b"-")
    room = _COMM_BYTES - len(dash + number)
    return pool[:room] + dash + number if room > 0 else name[:_COMM_BYTES]


def _set_title(title: bytes) -> None:
    global _last  # noqa: PLW0603 - the title is this process's
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    fd = os.open("/proc/self/mem", os.O_RDWR)
    try:
        if _last is not None and os.pread(fd, end - start, start) != _last:
            return  # user code has set a title of its own
        # Zeros to the end: else the system would show the environment, which follows, as part of the title.
        text = title[: end - start - 1].ljust(end - start, b"\0")
        os.pwrite(fd, text, start)
        _last = text
    finally:
        os.close(fd)
