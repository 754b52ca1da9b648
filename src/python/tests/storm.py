"""Random interleavings of calls, streams, credit and cancels, as a host could send them."""

from __future__ import annotations

import random
import select
import time

from tests.support import CANCELLED, CHUNK, DEADLINE, END, ERROR, RESULT, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    import unittest

SOURCE = """
import asyncio, sys, time, warnings

# Before 3.11 a signal may also come between the coroutine of `delegates` and its return.
if sys.version_info < (3, 11): warnings.filterwarnings('ignore', 'coroutine .* was never awaited', module=__name__)

def quick(n):
    total = 0
    for i in range(n): total += i
    return total

async def later(n):
    for _ in range(n % 7): await asyncio.sleep(0)
    return n

async def pauses(n):
    await asyncio.sleep(n % 3 / 1000)
    return n

def delegates(n): return later(n)

def fails(n):
    kinds = (SystemExit, KeyboardInterrupt, RecursionError, MemoryError, GeneratorExit, ValueError)
    raise kinds[n % len(kinds)](str(n))

async def fails_later(n):
    await asyncio.sleep(0)
    fails(n)

def generate(n):
    for i in range(n % 50): yield i

async def generate_later(n):
    for i in range(n % 50):
        if i % 5 == 0: await asyncio.sleep(0)
        yield i

def alive(): return "alive"
"""
# A slow thread is not interrupted where the coroutine of a function that has ended would be lost, which Python tells.
PATIENT = """
from hatchery import _threads
_threads._BOUNDARY_SECONDS = 20
"""
KINDS = ("SystemExit", "KeyboardInterrupt", "RecursionError", "MemoryError", "GeneratorExit", "ValueError")


class Storm:
    """Sends calls to a worker, and judges its answers."""

    def __init__(self, case: unittest.TestCase, worker: Worker, chance: random.Random, in_flight: int) -> None:
        self.case, self.worker, self.chance, self.in_flight = case, worker, chance, in_flight
        self.open: dict[int, tuple[str, int, dict]] = {}
        self.counts = {"answered": 0, "cancelled": 0}

    def run(self, calls: int) -> None:
        sent = 0
        while sent < calls or self.open:
            while sent < calls and len(self.open) < self.in_flight and self.chance.random() < 0.8:
                self.call()
                sent += 1
            if self.open and self.chance.random() < 0.3:
                self.cancel(self.chance.choice(list(self.open)))
            if self.open:
                self.take()
        self.case.assertTrue(self.worker.quiet(0.01))
        self.case.assertEqual(self.worker.call("alive"), "alive")

    def call(self) -> None:
        names = ("quick", "later", "pauses", "delegates", "fails", "fails_later", "generate", "generate_later")
        function = self.chance.choice(names)
        size = self.chance.choice([1, 10, 100, 1000]) + self.chance.randrange(10)
        options = {"credit": self.chance.choice([1, 10, 1000])} if "generate" in function else {}
        call_id = self.worker.send_call(function, [size], **options)
        self.open[call_id] = (function, size, {"items": 0, "cancelled": False, **options})

    def cancel(self, call_id: int) -> None:
        self.open[call_id][2]["cancelled"] = True
        self.worker.cancel(call_id)

    def take(self) -> None:
        """Take one frame, repeating the signal as the host does."""
        end = time.monotonic() + DEADLINE
        while not select.select([self.worker.sock], [], [], 0.1)[0]:
            self.case.assertLess(time.monotonic(), end, self.open)
            if any(state["cancelled"] for _, _, state in self.open.values()):
                self.worker.poke()
        kind, call_id, body = self.worker.receive()
        self.case.assertIn(call_id, self.open, (kind, body))
        function, size, state = self.open[call_id]
        if kind == CHUNK:
            self.case.assertEqual(body, state["items"])
            state["items"] += 1
            state["credit"] -= 1
            self.case.assertGreaterEqual(state["credit"], 0)
            if not state["credit"]:
                state["credit"] = self.chance.choice([1, 10, 1000])
                self.worker.credit(call_id, state["credit"])
            return
        del self.open[call_id]
        if body == CANCELLED:
            self.case.assertEqual((kind, state["cancelled"]), (ERROR, True))
            self.counts["cancelled"] += 1
            return
        self.counts["answered"] += 1
        if "generate" in function:
            self.case.assertEqual((kind, body, state["items"]), (END, None, size % 50))
        elif "fails" in function:
            self.case.assertEqual((kind, body["type"]), (ERROR, KINDS[size % len(KINDS)]))
            self.case.assertEqual(body["message"], str(size))
        else:
            expected = size * (size - 1) // 2 if function == "quick" else size
            self.case.assertEqual((kind, body), (RESULT, expected))


def blow(case: unittest.TestCase, calls: int, in_flight: int, **hello) -> None:
    """Run a storm with a new worker; prints the seed when it fails."""
    seed = random.randrange(1 << 32)
    source = SOURCE + PATIENT if "threads" in hello else SOURCE
    try:
        with Worker(source, in_flight=in_flight, **hello) as worker:
            pid = worker.ready()["pid"]
            storm = Storm(case, worker, random.Random(seed), in_flight)
            storm.run(calls)
            case.assertGreater(min(storm.counts.values()), calls // 50, storm.counts)
            case.assertEqual(worker.process.pid, pid)
            case.assertEqual(worker.shutdown(), 0)
            case.assertEqual(worker.printed, {"stdout": b"", "stderr": b""})
    except BaseException:
        print(f"seed = {seed}")
        raise
