"""The descriptors that a process of the host's has at its start: its own, and what it should not have."""

from __future__ import annotations

import os

# How many numbers are tried without /proc, if the process may have so many.
_MOST_TRIED = 65536


def close_inherited() -> None:
    """Close what the host, or a program between it and Python, left open for this process: it is not for a worker.

    Only what is inheritable has come through the start of a program. All that Python opens is not.
    """
    numbers: list[int] | range
    try:
        numbers = list(map(int, os.listdir("/proc/self/fd")))
    except OSError:
        limit = os.sysconf("SC_OPEN_MAX")
        numbers = range(_MOST_TRIED if limit < 0 else min(limit, _MOST_TRIED))
    for fd in numbers:
        try:
            if fd > 2 and os.get_inheritable(fd):
                os.close(fd)
        except OSError:
            continue  # it is not open


def named(fds: list[int]) -> dict[str, int | None]:
    """Name those that come with the first bytes of the channel, or with a fork."""
    stacks, lifeline, memfds, *begun = fds
    return {
        "stack_fd": stacks,
        "lifeline_fd": lifeline,
        "fd_socket": memfds,
        "begun_fd": begun[0] if begun else None,
    }
