"""Synchronous functions in threads of a real worker."""

from __future__ import annotations

import time
import unittest
from typing import ClassVar

from tests import storm
from tests.support import CANCEL, CANCELLED, CHUNK, END, ERROR, LOG, PROGRESS, RESULT, STACK, Shared, Worker, frame

SOURCE = '''
import asyncio, logging, os, pathlib, threading, time
import hatchery

log = []

def logged():
    happened = list(log)
    log.clear()
    return happened

def here(name="here"): pathlib.Path(name).touch()
def same(value): return value
def name(): return threading.current_thread().name
def daemonic(): return threading.current_thread().daemon

def gated(name):
    here("in_" + name)
    while not os.path.exists(name): time.sleep(0.001)
    os.unlink(name)
    return name

def meet(n):
    barrier.wait(20)
    return n
barrier = threading.Barrier(3)

def spin():
    here()
    while True: pass

def swallows():
    try:
        here()
        while True: pass
    except BaseException as error:
        log.append([type(error).__name__, str(error), hatchery.cancelled()])
    for _ in range(100): time.sleep(0.001)
    return "went on"

def cleans_up():
    try:
        here()
        while True: pass
    finally:
        for _ in range(50): time.sleep(0.001)
        hatchery.progress("cleaning")
        log.append(hatchery.cancelled())

class Deleted:
    def __del__(self):
        here()
        while True: pass

def in_del():
    Deleted()
    log.append("after del")
    while True: pass

def progresses():
    i = 0
    while True:
        hatchery.progress([i, "x" * 3000])
        i += 1

def logs():
    i = 0
    while True:
        logging.warning("%s %s", i, "x" * 3000)
        i += 1

def context(n):
    state = hatchery.session()
    state["n"] = n
    hatchery.progress(n)
    time.sleep(0.01)
    return [hatchery.session()["n"], hatchery.deadline() is not None, hatchery.cancelled(), hatchery.request_id()]

def count(n):
    for i in range(n): yield i

def forever():
    try:
        i = 0
        while True:
            yield i
            i += 1
    except BaseException as error:
        log.append(type(error).__name__)
        raise

def one_at_a_time(n):
    """Steps of one generator never overlap."""
    inside = threading.Lock()
    for i in range(n):
        assert inside.acquire(blocking=False)
        time.sleep(0.0005)
        inside.release()
        yield threading.current_thread().name

def named(n):
    for i in range(n): yield threading.current_thread().name

async def later(value):
    await asyncio.sleep(0.01)
    return [value, threading.current_thread() is threading.main_thread()]

def delegates(value): return later(value)

async def agenerate(n):
    for i in range(n): yield i

def delegates_stream(n): return agenerate(n)

def ends(how):
    raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "generator": GeneratorExit}[how]

def blocks():
    here()
    time.sleep(3600)

@hatchery.on_stop
def stopped(): print("stopped", flush=True)
'''

PATIENT = """
from hatchery import _threads
_threads.PATIENCE_SECONDS = 20  # a thread may be slow
"""


class Threads(Shared):
    source = SOURCE + PATIENT
    options: ClassVar[dict] = {"in_flight": 8, "threads": 3}
    printed: ClassVar[dict] = {"stdout": b"stopped\n", "stderr": b""}

    def setUp(self) -> None:
        self.call("logged")

    def tearDown(self) -> None:
        self.assertEqual(self.call("same", 1), 1)
        self.assertTrue(self.worker.quiet())

    def test_they_run_together(self) -> None:
        calls = [self.send("meet", n) for n in range(3)]
        self.assertEqual(self.answers(3), dict(zip(calls, range(3))))

    def test_names(self) -> None:
        self.assertIn(self.call("name"), {"hatchery-1", "hatchery-2", "hatchery-3"})
        self.assertIs(self.call("daemonic"), True)

    def test_more_calls_than_threads(self) -> None:
        calls = {name: self.send("gated", name) for name in "abcde"}
        for name in "abc":
            self.worker.wait_for("in_" + name)
        self.assertEqual(self.worker.begun()[1], 0)
        self.assertLess(self.worker.begun()[0], calls["d"])
        self.assertEqual(self.worker.cancelled(calls["d"]), CANCELLED)  # it has not begun
        self.worker.touch("b")
        self.assertEqual(self.worker.answer(calls["b"]), (RESULT, "b"))
        self.worker.wait_for("in_e")
        self.assertEqual(self.worker.begun(), (calls["e"], 0))
        for name in "eca":
            self.worker.touch(name)
            self.assertEqual(self.worker.answer(calls[name]), (RESULT, name))

    def test_cancel(self) -> None:
        neighbour = self.send("gated", "n")
        self.worker.wait_for("in_n")
        for function, expected in (("spin", CANCELLED), ("cleans_up", CANCELLED), ("swallows", "went on")):
            for _ in range(3):
                with self.subTest(function):
                    call_id = self.send(function)
                    self.worker.wait_for("here")
                    self.assertEqual(self.worker.cancelled(call_id), expected)
        self.worker.touch("n")
        self.assertEqual(self.worker.answer(neighbour), (RESULT, "n"))
        swallowed = ["Cancelled", "the call was cancelled", True]
        self.assertEqual(self.call("logged"), [True] * 3 + [swallowed] * 3)

    def test_cancel_where_python_cannot_raise(self) -> None:
        call_id = self.send("in_del")
        self.worker.wait_for("here")
        self.assertEqual(self.worker.cancelled(call_id), CANCELLED)

    def test_frames_are_not_cut(self) -> None:
        for _ in range(20):
            call_id = self.send("progresses", progress=True)
            for n in range(20):
                self.assertEqual(self.worker.answer(call_id), (PROGRESS, [n, "x" * 3000]))
            self.worker.cancel(call_id)
            kind = PROGRESS
            while kind == PROGRESS:
                kind, body = self.worker.answer(call_id)
            self.assertEqual((kind, body), (ERROR, CANCELLED))

    def test_contexts(self) -> None:
        expected = {}
        progress = {}
        for n in range(6):
            timeout = 50_000 * (n % 2)
            call_id = self.send("context", n, session=f"s{n}", progress=True, request_id=f"r{n}", timeout_ms=timeout)
            expected[call_id], progress[call_id] = [n, n % 2 == 1, False, f"r{n}"], n
        for _ in range(12):
            kind, call_id, body = self.worker.receive()
            self.assertEqual(body, progress[call_id] if kind == PROGRESS else expected[call_id])

    def test_streams(self) -> None:
        self.assertEqual(self.worker.items(self.send("count", 1000, credit=10_000)), (list(range(1000)), END, None))
        call_id = self.send("count", 5, credit=0)
        for n in range(5):
            self.worker.credit(call_id, 1)
            self.assertEqual(self.worker.answer(call_id), (CHUNK, n))
        self.worker.credit(call_id, 1)
        self.assertEqual(self.worker.answer(call_id), (END, None))
        items, kind, _ = self.worker.items(self.send("one_at_a_time", 50, credit=1000))
        self.assertEqual((len(items), kind), (50, END))
        self.assertLessEqual(set(items), {"hatchery-1", "hatchery-2", "hatchery-3"})

    def test_more_streams_than_threads(self) -> None:
        streams = {self.send("forever", credit=2**32 - 1) for _ in range(5)}
        seen = dict.fromkeys(streams, 0)
        while min(seen.values()) < 10:
            kind, call_id, item = self.worker.receive()
            self.assertEqual((kind, item), (CHUNK, seen[call_id]))
            seen[call_id] += 1
        for call_id in streams:
            self.worker.cancel(call_id)
        while streams:
            kind, call_id, body = self.worker.receive()
            if kind != CHUNK:
                self.assertEqual((kind, body), (ERROR, CANCELLED))
                streams.remove(call_id)
        self.assertEqual(self.call("logged"), ["Cancelled"] * 5)

    def test_the_cancel_of_a_stream_that_waits(self) -> None:
        call_id = self.send("forever", credit=1)
        self.assertEqual(self.worker.answer(call_id), (CHUNK, 0))
        self.assertEqual(self.worker.cancelled(call_id), CANCELLED)
        self.assertEqual(self.call("logged"), ["Cancelled"])

    def test_asynchronous_ones_run_on_the_main_thread(self) -> None:
        self.assertEqual(self.call("later", 1), [1, True])
        self.assertEqual(self.call("delegates", 2), [2, True])
        self.assertEqual(self.worker.items(self.send("delegates_stream", 3, credit=10)), ([0, 1, 2], END, None))

    def test_what_is_no_exception_of_the_usual_kind(self) -> None:
        for how, kind in {"exit": "SystemExit", "interrupt": "KeyboardInterrupt", "generator": "GeneratorExit"}.items():
            for _ in range(4):
                self.assertEqual(self.call("ends", how)["type"], kind)
        self.assertEqual(self.call("same")["kind"], "arguments")
        self.assertEqual(self.call("smae")["kind"], "no_such_function")

    def test_stacks(self) -> None:
        call_id = self.send("gated", "s")
        self.worker.wait_for("in_s")
        self.worker.send(frame(STACK, call_id=call_id))
        kind, text = self.worker.answer(call_id)
        self.assertEqual(kind, STACK)
        self.assertRegex(text, r'\A  File "[^"]*usermodule.py", line \d+, in gated\n')
        self.assertNotIn("threading.py", text)
        self.worker.touch("s")
        self.assertEqual(self.worker.answer(call_id), (RESULT, "s"))


class Ends(unittest.TestCase):
    def test_a_thread_that_hangs_does_not_keep_the_process(self) -> None:
        for close in (False, True):
            with self.subTest(close=close), Worker(SOURCE, in_flight=2, threads=2) as worker:
                worker.ready()
                worker.send_call("blocks")
                worker.wait_for("here")
                if close:
                    worker.sock.close()
                    self.assertEqual(worker.end(), 0)
                else:
                    self.assertEqual(worker.shutdown(), 0)
                self.assertEqual(worker.printed["stdout"], b"stopped\n")

    def test_calls_that_run_end_first(self) -> None:
        with Worker(SOURCE + PATIENT, in_flight=4, threads=2) as worker:
            worker.ready()
            calls = [worker.send_call("spin") for _ in range(4)]
            worker.wait_for("here")
            worker.send(frame(16))
            got = {call_id: body for _, call_id, body in (worker.receive() for _ in calls)}
            self.assertEqual(got, dict.fromkeys(calls, CANCELLED))
            self.assertEqual(worker.end(), 0)

    def test_a_host_that_is_gone_when_a_thread_answers(self) -> None:
        with Worker(SOURCE, in_flight=4, threads=2) as worker:
            worker.ready()
            worker.send_call("gated", ["a"])
            worker.wait_for("in_a")
            worker.sock.close()
            worker.touch("a")
            self.assertIn(worker.end(), (0, 74))


class Races(unittest.TestCase):
    def test_a_cancel_hits_its_own_call(self) -> None:
        """One thread: a cancel that came too late would hit the next call."""
        with Worker(storm.SOURCE, in_flight=2, threads=1) as worker:
            worker.ready()
            counts = {RESULT: 0, ERROR: 0}
            size = 200
            for n in range(2000):
                first = worker.send_call("quick", [10**9 if n % 40 == 20 else size])  # and some in time
                second = worker.send_call("quick", [10])
                pause = time.perf_counter() + n % 17 * 20e-6
                while time.perf_counter() < pause:
                    pass
                received = [worker.receive()] if n % 40 == 0 else []  # some cancels come too late on any machine
                worker.send(frame(CANCEL, call_id=first))
                received += [worker.receive() for _ in range(2 - len(received))]
                answers = {call_id: (kind, body) for kind, call_id, body in received}
                self.assertIn(answers[first], [(ERROR, CANCELLED), (RESULT, sum(range(size)))])
                counts[answers[first][0]] += 1
                if n % 20:  # of the others about half come in time
                    size = size * 10 // 11 if answers[first][0] == ERROR else size * 11 // 10 + 1
                self.assertEqual(answers[second], (RESULT, 45))
            self.assertGreaterEqual(min(counts.values()), 50, counts)
            self.assertEqual(worker.shutdown(), 0)
            self.assertEqual(worker.printed, {"stdout": b"", "stderr": b""})

    def test_calls_and_cancels(self) -> None:
        storm.blow(self, 2000, 8, threads=3)

    def test_log_records_are_not_cut(self) -> None:
        with Worker(SOURCE, in_flight=2, threads=2, log_level=20) as worker:
            worker.ready()
            for _ in range(20):
                calls = {worker.send_call("logs") for _ in range(2)}
                for _ in range(20):
                    kind, _, body = worker.receive()
                    self.assertEqual((kind, body["message"][-3000:]), (LOG, "x" * 3000))
                for call_id in calls:
                    worker.cancel(call_id)
                while calls:
                    kind, call_id, body = worker.receive()
                    if kind != LOG:
                        self.assertEqual((kind, body), (ERROR, CANCELLED))
                        calls.remove(call_id)
            self.assertEqual(worker.shutdown(), 0)


if __name__ == "__main__":
    unittest.main()
