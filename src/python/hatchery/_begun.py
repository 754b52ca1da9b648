"""Memory that outlives this process, in which it marks which calls have begun: see "Several calls" of the protocol."""

from __future__ import annotations

import os
from mmap import mmap


def words(fd: int) -> memoryview:
    """Map the two words: the largest id of a call that has begun, and whose synchronous code is on the main thread."""
    try:
        return memoryview(mmap(fd, 16)).cast("Q")
    finally:
        os.close(fd)  # the mapping has a descriptor of its own, which no child inherits
