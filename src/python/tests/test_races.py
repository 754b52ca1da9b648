"""Two threads where one used to be enough, each race made to happen: one thread waits in the middle for the other."""

from __future__ import annotations

import unittest

from tests.support import HOST_CALL, Worker

# `Door` stands before a lock and tells when a second thread comes to it, which is as far as that one gets.
DOOR = """
import threading
from hatchery import _calls

other_came = threading.Event()
worker = _calls.main.worker

class Door:
    def __init__(self, lock):
        self.lock, self.came = lock, 0
    def __enter__(self):
        self.came += 1
        if self.came == 2: other_came.set()
        self.lock.acquire()
    def __exit__(self, *_):
        self.lock.release()
"""


class FirstUse(unittest.TestCase):
    def test_the_first_host_calls_come_from_two_threads(self) -> None:
        source = """
from hatchery import _host, call_host
worker._making = Door(getattr(worker, "_making", threading.RLock()))
hosts = []

class Host(_host.Host):
    def __init__(self, worker):
        hosts.append(self)
        if len(hosts) == 2: other_came.set()
        assert other_came.wait(20)
        super().__init__(worker)
_host.Host = Host

def ask(n): return [n, call_host("same", n)]
def count(): return len(hosts)
"""
        with Worker(DOOR + source, in_flight=2, threads=2) as worker:
            worker.ready()
            calls = {worker.send_call("ask", [n]): n for n in range(2)}
            asked = [worker.receive() for _ in calls]
            self.assertEqual({(kind, number) for kind, number, _ in asked}, {(HOST_CALL, 1), (HOST_CALL, 2)})
            for _, number, body in asked:
                worker.send_host_result(number, body[1][0])
            answers = [worker.receive()[1:] for _ in calls]
            self.assertEqual(dict(answers), {call_id: [n, n] for call_id, n in calls.items()})
            self.assertEqual(worker.call("count"), 1)


if __name__ == "__main__":
    unittest.main()
