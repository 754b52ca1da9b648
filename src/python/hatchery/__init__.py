"""The worker's side of hatchery. A module that runs in a pool need not import it.

What is here can be used in any function that a pool calls, in async code too, and in threads of synchronous calls.
"""

from hatchery._calls import Cancelled, cancelled, deadline, progress, session
from hatchery._hooks import export, on_preload, on_session_end, on_start, on_stop

__version__ = "0.1.0"
__all__ = [
    "Cancelled",
    "__version__",
    "cancelled",
    "deadline",
    "export",
    "on_preload",
    "on_session_end",
    "on_start",
    "on_stop",
    "progress",
    "session",
]
