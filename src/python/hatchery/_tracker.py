"""Keeps Python's resource tracker alive until it has cleaned up. `_worker` installs it.

The tracker is a child process. It removes shared memory and named semaphores from /dev/shm when all processes that use
the tracker have closed a pipe. The host kills the process group of a worker that has ended, and would kill the tracker
too early. So this module starts each tracker in a session of its own, also the tracker of joblib's loky.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

# This module's `spawnv_passfds` starts every tracker.
_STARTS_TRACKERS = "multiprocessing.util"
_MODULES = (
    "multiprocessing.resource_tracker",
    "loky.backend.resource_tracker",
    "joblib.externals.loky.backend.resource_tracker",
)
# How long the end of the worker waits for its tracker, which child processes may keep alive.
PATIENCE_SECONDS = 0.5
_started: dict[int, int] = {}  # process ids of trackers, and of the processes that started them


def install() -> None:
    """Patch the start of trackers. Call it before user code registers exit functions."""
    import atexit

    if _STARTS_TRACKERS in sys.modules:
        _patch(sys.modules[_STARTS_TRACKERS])
    else:
        sys.meta_path.insert(0, _Finder())
    atexit.register(_end_trackers)  # registered first, so it runs last


class _Finder:
    """An import hook that patches the module when it is imported."""

    _searches = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find the module by the other finders, and patch it once it is loaded."""
        if name != _STARTS_TRACKERS or self._searches:
            return None
        from _frozen_importlib import _find_spec  # type: ignore[attr-defined]  # typeshed does not know it

        self._searches = True
        try:
            spec = _find_spec(name, path, target)
        finally:
            self._searches = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                _patch(module)

            spec.loader.exec_module = exec_module
        return spec


def _patch(util: Any) -> None:
    spawn: Callable[..., int] = util.spawnv_passfds

    def spawnv_passfds(path: Any, args: Any, passfds: Any) -> int:
        if b"resource_tracker import main" not in os.fsencode(args[-1]):
            return spawn(path, args, passfds)
        from subprocess import Popen

        process = Popen(  # noqa: S603
            args, executable=path, pass_fds=tuple(passfds), restore_signals=False, start_new_session=True
        )
        process.returncode = 0  # the caller waits for the process
        _started[process.pid] = os.getpid()
        return process.pid

    util.spawnv_passfds = spawnv_passfds


def _end_trackers() -> None:
    """Let the trackers of this process clean up before the worker ends."""
    for name in _MODULES:
        tracker: Any = getattr(sys.modules.get(name), "_resource_tracker", None)
        fd, pid = getattr(tracker, "_fd", None), getattr(tracker, "_pid", None)
        if fd is not None and pid is not None and _started.get(pid) == os.getpid():
            tracker._fd = tracker._pid = None  # noqa: SLF001
            try:
                os.close(fd)
                _wait_for(pid)
            except OSError:
                continue  # user code has closed it, or waited for it


def _wait_for(pid: int) -> None:
    from time import monotonic, sleep

    end = monotonic() + PATIENCE_SECONDS
    while os.waitpid(pid, os.WNOHANG)[0] == 0 and monotonic() < end:
        sleep(0.002)
