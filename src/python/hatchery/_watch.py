"""Warns about what a fork breaks: threads, open files, and certain libraries. `_zygote` checks after each import."""

from __future__ import annotations

import gc
import os
import sys

# Prefixes and suffixes depend on the build.
_OPENBLAS_NAMES = [
    f"{prefix}openblas_get_num_threads{suffix}" for prefix in ("", "scipy_") for suffix in ("", "64_", "_64")
]
_GRPC_NAMES = {"Channel", "Server", "_Server"}


class Watch:
    """Compares threads and open files after each import with those before."""

    def __init__(self) -> None:
        """Record the state before the first import."""
        self.warnings: list[str] = []
        self.threads = _threads()
        self.openblas = _openblas_threads()
        self.descriptors = descriptors()
        self.dangers: set[str] = set()

    def check(self, who: str, *, allowed: bool = False) -> None:
        """Warn about what is new since the last check, and blame `who`. Warn about nothing if that is allowed."""
        found = self.warnings
        if allowed:
            self.warnings = []
        self._compare(who)
        self.warnings = found

    def _compare(self, who: str) -> None:
        threads = _threads()
        new = [name for thread, name in threads.items() if thread not in self.threads]
        if new:
            # OpenBLAS ends its threads before a fork and restarts them after it. They have the name of the process.
            openblas = _openblas_threads()
            own_name = _comm("self")
            for _ in range(openblas - self.openblas):
                if own_name in new:
                    new.remove(own_name)
            self.openblas = openblas
        if new:
            self.warnings.append(
                f"{who} left {len(new)} thread{'s' * (len(new) > 1)} running in the template ({', '.join(new)}): "
                "no forked worker has them, and a lock that one of them holds stays locked there"
            )
        now = descriptors()
        shared = [(fd, to) for fd, to in now.items() if self.descriptors.get(fd) != to]
        sockets = [str(fd) for fd, to in shared if to.startswith("socket:")]
        others = [f"{fd} ({to})" for fd, to in shared if not to.startswith("socket:")]
        if sockets:
            self.warnings.append(
                f"{who} left a socket open in the template (descriptor {', '.join(sockets)}): "
                "all forked workers share that one connection"
            )
        if others:
            self.warnings.append(
                f"{who} left a file open in the template: all forked workers share {', '.join(others)}"
            )
        for danger in _dangers(now):
            if danger not in self.dangers:
                self.dangers.add(danger)
                self.warnings.append(f"{who}: {danger}")
        self.threads, self.descriptors = threads, now


def _dangers(open_files: dict[int, str]) -> list[str]:
    """Return warnings about libraries that are known to break in a forked process."""
    found = []
    torch = sys.modules.get("torch")
    try:
        cuda = torch is not None and torch.cuda.is_initialized()
    except Exception:
        cuda = False
    if cuda or any(to.startswith("/dev/nvidia") for to in open_files.values()):
        found.append("CUDA is initialised, which cannot be used after a fork; use it first in an on_start hook")
    if "grpc" in sys.modules and any(map(_is_of_grpc, gc.get_objects())):
        found.append("a gRPC channel or server exists, which hangs after a fork; make it in an on_start hook")
    return found


def _is_of_grpc(thing: object) -> bool:
    kind = type(thing)
    return kind.__name__ in _GRPC_NAMES and str(kind.__module__).partition(".")[0] == "grpc"


def _openblas_threads() -> int:
    """Return the number of threads of all OpenBLAS libraries in this process; numpy and scipy each bring a library."""
    threads = 0
    for path in _openblas_libraries():
        try:
            from ctypes import CDLL

            library = CDLL(path)
            count = next(getattr(library, name) for name in _OPENBLAS_NAMES if hasattr(library, name))()
        except Exception:  # no ctypes, or other names: the default is one thread per processor
            count = len(os.sched_getaffinity(0))
        threads += max(count - 1, 0)  # one of them is the calling thread
    return threads


def _openblas_libraries() -> set[str]:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            paths = {line.rstrip("\n").partition("/")[2] for line in maps if "openblas" in line}
    except OSError:
        return set()
    return {"/" + path for path in paths if "openblas" in path.rpartition("/")[2]}


def _threads() -> dict[str, str]:
    names = {}
    python = _python_threads()
    for thread in os.listdir("/proc/self/task"):
        if int(thread) in python:
            names[thread] = python[int(thread)]
            continue
        try:
            names[thread] = _comm(f"self/task/{thread}")
        except OSError:
            continue  # the thread has ended
    return names


def _comm(of: str) -> str:
    with open(f"/proc/{of}/comm", encoding="utf-8", errors="replace") as comm:
        return comm.read().strip()


def _python_threads() -> dict[int, str]:
    threading = sys.modules.get("threading")
    return {} if threading is None else {thread.native_id: thread.name for thread in threading.enumerate()}


def descriptors() -> dict[int, str]:
    """Return the open descriptors and the targets of their links in /proc."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            continue  # the descriptor of the folder itself
    return found
