"""Shared memory and semaphores of `multiprocessing`: nothing of them outlives a worker, however that ends."""

from __future__ import annotations

import os
import pathlib
import signal
import time
import unittest

from tests.support import DEADLINE, SHUTDOWN, Worker, frame

SOURCE = """
import os, time
from multiprocessing import get_context, shared_memory

kept = []

def make():
    before = set(os.listdir("/dev/shm"))
    memory = shared_memory.SharedMemory(create=True, size=4096)
    lock = get_context("spawn").Lock()
    kept.extend([memory, lock])
    return [memory.name.lstrip("/"), lock._semlock.name.lstrip("/").join(["sem.", ""])]

def unlink():
    kept[0].close()
    kept[0].unlink()

def tracker():
    from multiprocessing import resource_tracker
    return resource_tracker._resource_tracker._pid

def fork():
    child = os.fork()
    if child == 0:
        time.sleep(1000)
        os._exit(0)
    return child

def leave(code): os._exit(code)
def in_a_child():
    with get_context("fork").Pool(1) as pool: return pool.apply(abs, (-1,))
"""


@unittest.skipUnless(os.path.isdir("/dev/shm"), "needs /dev/shm")
class Tracker(unittest.TestCase):
    def start(self, **hello: object) -> tuple[Worker, list[pathlib.Path], int]:
        worker = Worker(SOURCE, **hello)
        self.addCleanup(worker.__exit__)
        worker.ready()
        paths = [pathlib.Path("/dev/shm", name) for name in worker.call("make")]
        self.assertTrue(all(path.exists() for path in paths), paths)
        return worker, paths, worker.call("tracker")

    def assert_gone(self, paths: list[pathlib.Path], tracker: int) -> None:
        end = time.monotonic() + DEADLINE
        while any(path.exists() for path in paths) or os.path.exists(f"/proc/{tracker}/exe"):
            self.assertLess(time.monotonic(), end, paths)
            time.sleep(0.002)

    def test_at_an_orderly_end_it_is_done_before_the_worker_ends(self) -> None:
        worker, paths, tracker = self.start()
        self.assertEqual(worker.call("in_a_child"), 1)
        self.assertEqual(worker.shutdown(), 0)
        self.assertFalse(any(path.exists() for path in paths))
        self.assertFalse(os.path.exists(f"/proc/{tracker}"))
        worker, paths, tracker = self.start()
        worker.call("unlink")
        self.assertEqual(worker.shutdown(), 0)
        self.assertNotIn(b"leaked shared_memory", worker.printed["stderr"])

    def test_surviving_child_delays_tracker_only_while_group_lives(self) -> None:
        worker, paths, tracker = self.start()
        worker.call("fork")
        worker.send(frame(SHUTDOWN))
        self.assertEqual(worker.process.wait(DEADLINE), 0)
        os.killpg(worker.process.pid, signal.SIGKILL)  # as the host does
        self.assert_gone(paths, tracker)

    def test_at_a_kill_the_tracker_outlives_the_group(self) -> None:
        worker, paths, tracker = self.start()
        os.killpg(worker.process.pid, signal.SIGKILL)
        self.assert_gone(paths, tracker)

    def test_when_the_worker_dies(self) -> None:
        worker, paths, tracker = self.start()
        worker.send_call("leave", [3])
        self.assertEqual(worker.process.wait(DEADLINE), 3)
        try:
            os.killpg(worker.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # nothing was left in it
        self.assert_gone(paths, tracker)

    def test_when_the_host_dies(self) -> None:
        worker, paths, tracker = self.start()
        worker.parent_death.close()
        self.assert_gone(paths, tracker)


if __name__ == "__main__":
    unittest.main()
