"""Cancels that come at any moment of a call: one answer each, and the worker goes on."""

from __future__ import annotations

import random
import time
import unittest

from tests.support import CANCELLED, CHUNK, DEADLINE, ERROR, RESULT, Worker

SOURCE = """
import asyncio, os, sys, warnings

# Before 3.11 a signal may also come between the coroutine and its return.
if sys.version_info < (3, 11): warnings.filterwarnings('ignore', 'coroutine .* was never awaited', module=__name__)

def pid(): return os.getpid()
def same(value): return value

def quick(n):
    total = 0
    for i in range(n): total += i
    return total

def endless():
    while True: pass

def quick_generate(n):
    for i in range(n): yield i

async def quick_later(n):
    for i in range(n): await asyncio.sleep(0)
    return n

def delegates(n): return quick_later(n)

async def quick_generate_later(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i
"""


class Interleavings(unittest.TestCase):
    ROUNDS = 10_000

    def test_a_cancel_races_with_the_result(self) -> None:
        seed = random.randrange(1 << 32)
        try:
            with Worker(SOURCE) as worker:
                pid = worker.ready()["pid"]
                self.race(worker, random.Random(seed))
                self.assertEqual(worker.call("pid"), pid)
                self.assertEqual(worker.shutdown(), 0)
                self.assertEqual(worker.printed, {"stdout": b"", "stderr": b""})
        except BaseException:
            print(f"seed = {seed}")
            raise

    def race(self, worker: Worker, chance: random.Random) -> None:
        kinds = ("quick", "quick", "quick", "quick_generate", "same")
        late = ("quick_later", "delegates", "quick_generate_later")
        for round_ in range(self.ROUNDS):
            if round_ % 50 == 0:  # whoever is faster on this machine, some end in each of the two ways
                call_id = worker.send_call("same", [round_])
                self.assertFalse(worker.quiet(DEADLINE))
                self.assertEqual(worker.cancelled(call_id), round_)
                self.assertEqual(worker.cancelled(worker.send_call("endless")), CANCELLED)
            # The last rounds have the event loop between them; it makes all rounds slower.
            function = chance.choice(kinds if round_ < self.ROUNDS * 4 // 5 else kinds + late)
            size = chance.choice([1, 10, 100, 1000, 3000])
            options = {"credit": 10**6} if "generate" in function else {}
            call_id = worker.send_call(function, [size], **options)
            pause = time.perf_counter() + chance.random() * chance.choice([2e-6, 50e-6, 300e-6])
            while time.perf_counter() < pause:
                pass
            worker.cancel(call_id)
            if chance.random() < 0.2:
                worker.poke()
            items = 0
            while True:
                kind, body = worker.answer(call_id)  # which checks the id
                if kind != CHUNK:
                    break
                self.assertEqual(body, items)
                items += 1
            if kind == ERROR:
                self.assertEqual(body, CANCELLED)
                continue
            if options:
                self.assertEqual((body, items), (None, size))
            else:
                expected = size * (size - 1) // 2 if function == "quick" else size
                self.assertEqual((kind, body), (RESULT, expected))
        self.assertTrue(worker.quiet(0.01))


if __name__ == "__main__":
    unittest.main()
