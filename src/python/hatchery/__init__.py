"""The worker's side of hatchery. A module that runs in a pool need not import it.

Any function that a pool calls can use these names, also in async code and in threads that the function starts.
"""

from hatchery._calls import (
    Cancelled,
    HostCallError,
    call_host,
    cancelled,
    deadline,
    progress,
    request_id,
    session,
    traceparent,
)
from hatchery._hooks import export, on_preload, on_session_end, on_start, on_stop

__version__ = "0.1.0"
__all__ = [
    "Cancelled",
    "HostCallError",
    "__version__",
    "call_host",
    "cancelled",
    "deadline",
    "export",
    "on_preload",
    "on_session_end",
    "on_start",
    "on_stop",
    "progress",
    "request_id",
    "session",
    "traceparent",
]
