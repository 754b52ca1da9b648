"""The descriptors that a worker has at its start. `_worker` closes the foreign ones and names the worker's own."""

from __future__ import annotations

import os

# How many numbers are tried if there is no /proc.
_MAX_TRIED = 65536


def close_inherited() -> None:
    """Close descriptors that the host, or a program between host and Python, left open by mistake.

    These are the inheritable ones: Python opens its own as not inheritable.
    """
    numbers: list[int] | range
    try:
        numbers = list(map(int, os.listdir("/proc/self/fd")))
    except OSError:
        limit = os.sysconf("SC_OPEN_MAX")
        numbers = range(_MAX_TRIED if limit < 0 else min(limit, _MAX_TRIED))
    for fd in numbers:
        try:
            if fd > 2 and os.get_inheritable(fd):
                os.close(fd)
        except OSError:
            continue  # it is not open


def named(fds: list[int]) -> dict[str, int | None]:
    """Name the descriptors that came with the first bytes of the channel, or with a fork request."""
    stacks, parent_death, memfds, *start_marker = fds
    return {
        "stack_fd": stacks,
        "parent_death_fd": parent_death,
        "fd_socket": memfds,
        "start_marker_fd": start_marker[0] if start_marker else None,
    }
