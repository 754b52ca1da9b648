"""The start marker: memory shared with the host, in which a worker records the calls that it starts.

`_serving` maps it. It outlives the worker, so the host knows which calls had begun: see "Several calls" in
docs/wire-protocol.md.
"""

from __future__ import annotations

import os
from mmap import mmap


def map_marker(fd: int) -> memoryview:
    """Map the two words: the largest id of a started call, and the id of the call that the main thread runs, or 0."""
    try:
        return memoryview(mmap(fd, 16)).cast("Q")
    finally:
        os.close(fd)  # the mapping has its own descriptor, which no child inherits
