"""What a fork does not copy, or would share: threads, open files, and modules known to break."""

from __future__ import annotations

import os
import sys


class Watch:
    """Compares what there is after each import with what was there before."""

    def __init__(self) -> None:
        """Take the first look."""
        self.warnings: list[str] = []
        self.threads = _threads()
        self.descriptors = descriptors()
        self.dangers: set[str] = set()

    def look(self, who: str) -> None:
        """Note what is new since the last look as the doing of `who`."""
        threads = _threads()
        new = [name for thread, name in threads.items() if thread not in self.threads]
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
    """Name what is known to break in a forked process."""
    found = []
    torch = sys.modules.get("torch")
    try:
        cuda = torch is not None and torch.cuda.is_initialized()
    except Exception:
        cuda = False
    if cuda or any(to.startswith("/dev/nvidia") for to in open_files.values()):
        found.append("CUDA is initialised, which cannot be used after a fork; use it first in an on_start hook")
    if "grpc" in sys.modules:
        found.append(
            "gRPC is imported: channels and servers that exist before a fork hang after it; "
            "make them in an on_start hook"
        )
    return found


def _threads() -> dict[str, str]:
    names = {}
    python = _python_threads()
    for thread in os.listdir("/proc/self/task"):
        if int(thread) in python:
            names[thread] = python[int(thread)]
            continue
        try:
            with open(f"/proc/self/task/{thread}/comm", encoding="utf-8", errors="replace") as comm:
                names[thread] = comm.read().strip()
        except OSError:
            continue  # it has ended
    return names


def _python_threads() -> dict[int, str]:
    threading = sys.modules.get("threading")
    return {} if threading is None else {thread.native_id: thread.name for thread in threading.enumerate()}


def descriptors() -> dict[int, str]:
    """Return the open descriptors, and what each is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            continue  # that of the folder itself
    return found
