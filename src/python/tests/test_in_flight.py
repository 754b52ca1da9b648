"""Several calls in one worker: their order, their ends, what a cancel hits, and what tells which have begun."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import time
import unittest
from typing import ClassVar

from tests import storm
from tests.support import CANCEL, CANCELLED, CHUNK, DEADLINE, END, ERROR, RESULT, STACK, Shared, Worker, frame

SOURCE = '''
import asyncio, os, pathlib, time
import hatchery

log = []

def logged():
    happened = list(log)
    log.clear()
    return happened

def note(text): log.append(text)
def same(value): return value

def gated(name):
    """Run until the test makes a file."""
    log.append(name)
    pathlib.Path("in_" + name).touch()
    while not os.path.exists(name): time.sleep(0.001)
    os.unlink(name)
    return name

async def gated_later(name):
    log.append(name)
    pathlib.Path("in_" + name).touch()
    while not os.path.exists(name): await asyncio.sleep(0.001)
    os.unlink(name)
    return name

async def meet(n):
    """End when so many are there."""
    meet.there = getattr(meet, "there", 0) + 1
    while meet.there < n: await asyncio.sleep(0)
    return n

def spin():
    log.append("spin")
    pathlib.Path("in_spin").touch()
    while True: pass

def swallows():
    try:
        pathlib.Path("in_swallows").touch()
        while True: pass
    except BaseException:
        pass
    return hatchery.cancelled()

def ends(how):
    if how == "recursion": return ends(how)
    if how == "memory": return [None] * 2**60
    raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "generator": GeneratorExit}[how]

async def ends_later(how):
    await asyncio.sleep(0)
    ends(how)

def count(n):
    for i in range(n): yield i

async def count_later(n):
    for i in range(n): yield i

def add(n):
    state = hatchery.session()
    state["n"] = state.get("n", 0) + n
    return state["n"]

async def add_later(n):
    state = hatchery.session()
    await asyncio.sleep(0)
    return add(n)

async def sleeps(): await asyncio.sleep(0.1)

def forks():
    child = os.fork()
    if child == 0:
        while not os.path.exists("child_may_go"): time.sleep(0.001)
        return "child"
    return child

def collect(child): return os.waitpid(child, 0)[1] >> 8

async def waits(seconds):
    await asyncio.sleep(seconds)
'''


class Case(Shared):
    """What all share: a worker that takes several calls."""

    source = SOURCE
    options: ClassVar[dict] = {"in_flight": 8}

    def setUp(self) -> None:
        self.call("logged")

    def tearDown(self) -> None:
        self.assertEqual(self.call("same", 1), 1)
        self.assertTrue(self.worker.quiet())

    def open_gate(self, name: str) -> None:
        self.worker.touch(name)


class InFlight(Case):
    def test_synchronous_ones_run_in_order(self) -> None:
        calls = [self.send("note", n) for n in range(8)]
        self.assertEqual([self.worker.receive()[1] for _ in calls], calls)
        self.assertEqual(self.call("logged"), list(range(8)))

    def test_asynchronous_ones_run_together(self) -> None:
        calls = [self.send("meet", 8) for _ in range(8)]
        self.assertEqual(self.answers(8), dict.fromkeys(calls, 8))

    def test_answers_come_as_they_end(self) -> None:
        calls = {name: self.send("gated_later", name) for name in "abcd"}
        for name in "abcd":
            self.worker.wait_for("in_" + name)
        for name in "cadb":
            self.open_gate(name)
            self.assertEqual(self.worker.receive(), (RESULT, calls[name], name))

    def test_a_queued_call_is_cancelled_at_once(self) -> None:
        running = self.send("gated", "a")
        self.worker.wait_for("in_a")
        queued = [self.send("note", n) for n in range(6)]
        for call_id in (queued[4], queued[0], queued[5]):
            self.assertEqual(self.worker.cancelled(call_id), CANCELLED)
        self.assertTrue(self.worker.quiet(0.01))  # the one that runs is not disturbed
        self.open_gate("a")
        self.assertEqual(self.worker.answer(running), (RESULT, "a"))
        for call_id in (queued[1], queued[2], queued[3]):
            self.assertEqual(self.worker.answer(call_id), (RESULT, None))
        self.assertEqual(self.call("logged"), ["a", 1, 2, 3])

    def test_the_running_one_is_cancelled_alone(self) -> None:
        running = self.send("spin")
        self.worker.wait_for("in_spin")
        queued = [self.send("note", n) for n in range(5)]
        self.assertEqual(self.worker.cancelled(running), CANCELLED)
        self.assertEqual([self.worker.answer(call_id) for call_id in queued], [(RESULT, None)] * 5)
        self.assertEqual(self.call("logged"), ["spin", 0, 1, 2, 3, 4])

    def test_a_swallowed_cancel_hits_no_neighbour(self) -> None:
        running = self.send("swallows")
        self.worker.wait_for("in_swallows")
        queued = [self.send("note", n) for n in range(5)]
        self.worker.cancel(running)
        self.worker.remind(0.05)
        self.assertEqual(self.worker.answer(running), (RESULT, True))
        for _ in range(20):
            self.worker.poke()
        self.assertEqual([self.worker.answer(call_id) for call_id in queued], [(RESULT, None)] * 5)

    def test_asynchronous_neighbours(self) -> None:
        calls = {name: self.send("gated_later", name) for name in "abcd"}
        for name in "abcd":
            self.worker.wait_for("in_" + name)
        self.assertEqual(self.worker.cancelled(calls["b"]), CANCELLED)
        self.assertEqual(self.worker.cancelled(calls["d"]), CANCELLED)
        for name in "ac":
            self.open_gate(name)
            self.assertEqual(self.worker.answer(calls[name]), (RESULT, name))

    def test_failures_hit_no_neighbour(self) -> None:
        kinds = {
            "exit": "SystemExit",
            "interrupt": "KeyboardInterrupt",
            "generator": "GeneratorExit",
            "recursion": "RecursionError",
            "memory": "MemoryError",
        }
        bystander = self.send("gated_later", "bystander")
        self.worker.wait_for("in_bystander")
        for how, kind in kinds.items():
            for function in ("ends", "ends_later"):
                with self.subTest(how, function=function):
                    failing, fine = self.send(function, how), self.send("same", how)
                    answers = self.answers(2)
                    self.assertEqual((answers[failing]["type"], answers[fine]), (kind, how))
        self.open_gate("bystander")
        self.assertEqual(self.worker.answer(bystander), (RESULT, "bystander"))

    def test_streams_and_calls_take_turns(self) -> None:
        for function in ("count", "count_later"):
            with self.subTest(function):
                streams = [self.send(function, 10**9, credit=2**32 - 1) for _ in range(2)]
                for n in range(5):
                    call_id, chunks = self.send("same", n), 0
                    later = self.send("meet", 0)
                    left = {call_id, later}
                    while left:
                        kind, answered, _ = self.worker.receive()
                        chunks += kind == CHUNK
                        left.discard(answered)
                    self.assertLess(chunks, 100_000)
                seen = dict.fromkeys(streams, 0)
                while min(seen.values()) < 10:  # both go on
                    seen[self.worker.receive()[1]] += 1
                for call_id in streams:
                    self.worker.cancel(call_id)
                left = set(streams)
                while left:
                    kind, answered, body = self.worker.receive()
                    if kind != CHUNK:
                        self.assertEqual((kind, body), (ERROR, CANCELLED))
                        left.remove(answered)

    def test_the_cancel_of_a_stream_does_not_wait_for_queued_calls(self) -> None:
        stream = self.send("count", 10, credit=1)
        self.assertEqual(self.worker.answer(stream), (CHUNK, 0))
        first = self.send("gated", "a")
        self.worker.wait_for("in_a")
        second = self.send("gated", "b")
        self.worker.send(frame(CANCEL, call_id=stream))
        self.open_gate("a")
        self.assertEqual(self.worker.answer(first), (RESULT, "a"))
        self.assertEqual(self.worker.answer(stream), (ERROR, CANCELLED))
        self.open_gate("b")
        self.assertEqual(self.worker.answer(second), (RESULT, "b"))

    def test_credit_for_a_stream_that_has_not_begun(self) -> None:
        first = self.send("gated", "a")
        self.worker.wait_for("in_a")
        stream = self.send("count", 2, credit=0)
        self.worker.credit(stream, 5)
        self.open_gate("a")
        self.assertEqual(self.worker.answer(first), (RESULT, "a"))
        self.assertEqual(self.worker.items(stream), ([0, 1], END, None))

    def test_a_session_is_shared(self) -> None:
        calls = [self.send(function, 1, session="s") for function in ("add", "add_later") * 4]
        self.assertEqual(sorted(self.answers(8).values()), list(range(1, 9)))
        self.assertEqual(self.worker.answer(self.send("add", 0, session="s")), (RESULT, 8))
        self.assertEqual(len(calls), 8)

    def test_a_thousand_sleeping_calls(self) -> None:
        self.call("sleeps")
        began = time.monotonic()
        calls = self.worker.send_calls("sleeps", 1000)
        self.assertEqual(self.answers(1000), dict.fromkeys(calls))
        self.assertLess(time.monotonic() - began, 20)

    def test_stacks(self) -> None:
        later = self.send("gated_later", "later")
        self.worker.wait_for("in_later")
        running = self.send("gated", "a")
        self.worker.wait_for("in_a")
        self.assertEqual(self.worker.begun(), (running, running))
        self.assertIn("in gated", self.worker.stack())
        self.worker.send(frame(STACK, call_id=later))
        self.open_gate("a")
        self.assertEqual(self.worker.answer(running), (RESULT, "a"))
        kind, text = self.worker.answer(later)
        self.assertEqual(kind, STACK)
        self.assertIn("in gated_later", text)
        self.assertEqual(self.worker.begun(), (running, 0))
        self.open_gate("later")
        self.assertEqual(self.worker.answer(later), (RESULT, "later"))

    def test_a_stream_between_two_steps_is_on_no_thread(self) -> None:
        stream = self.send("count", 10, credit=1)
        self.assertEqual(self.worker.answer(stream), (CHUNK, 0))
        self.assertEqual(self.call("same", 1), 1)  # the step is surely over
        self.assertEqual(self.worker.begun(), (stream + 1, 0))
        self.assertEqual(self.worker.cancelled(stream), CANCELLED)


class FirstCalls(unittest.TestCase):
    """What differs before there is an event loop: each has a worker of its own."""

    with_loop = False

    def setUp(self) -> None:
        self.worker = Worker(SOURCE, in_flight=8)
        self.addCleanup(self.worker.__exit__)
        self.worker.ready()
        self.call = self.worker.call
        if self.with_loop:
            self.call("meet", 0)

    send, answers, open_gate, tearDown = Case.send, Case.answers, Case.open_gate, Case.tearDown

    def test_asynchronous_ones_do_not_wait_for_synchronous_ones(self) -> None:
        a = self.send("gated", "a")
        self.worker.wait_for("in_a")
        b, later = self.send("gated", "b"), self.send("gated_later", "later")
        self.open_gate("a")
        self.assertEqual(self.worker.answer(a), (RESULT, "a"))
        self.worker.wait_for("in_b")
        self.worker.wait_for("in_later")
        self.open_gate("b")
        self.assertEqual(self.worker.answer(b), (RESULT, "b"))
        self.open_gate("later")
        self.assertEqual(self.worker.answer(later), (RESULT, "later"))
        self.assertEqual(self.call("logged"), ["a", "later", "b"])

    def test_a_queued_call_is_cancelled_without_a_signal(self) -> None:
        running = self.send("gated", "a")
        self.worker.wait_for("in_a")
        queued = [self.send("note", n) for n in range(3)]
        later = self.send("gated_later", "never")
        for call_id in (queued[1], later):
            self.worker.send(frame(CANCEL, call_id=call_id))
        self.open_gate("a")
        self.assertEqual(self.worker.answer(running), (RESULT, "a"))
        answers = self.answers(4)
        self.assertEqual({call_id for call_id in answers if answers[call_id]}, {queued[1], later})
        self.assertEqual(answers[later], CANCELLED)
        self.assertEqual(self.call("logged"), ["a", 0, 2])

    def test_start_marker_records_started_calls(self) -> None:
        if not self.with_loop:
            self.assertEqual(self.worker.begun(), (0, 0))
        first = self.send("gated", "a")
        self.worker.wait_for("in_a")
        queued = self.send("gated", "b")
        self.assertEqual(self.worker.begun(), (first, first))
        self.open_gate("a")
        self.assertEqual(self.worker.answer(first)[0], RESULT)
        self.worker.wait_for("in_b")
        self.assertEqual(self.worker.begun(), (queued, queued))
        self.open_gate("b")
        self.assertEqual(self.worker.answer(queued)[0], RESULT)
        later = self.send("gated_later", "c")
        self.worker.wait_for("in_c")
        self.assertEqual(self.worker.begun(), (later, 0))
        self.open_gate("c")
        self.assertEqual(self.worker.answer(later)[0], RESULT)

    def test_a_forked_child_marks_nothing(self) -> None:
        child = self.call("forks")
        running = self.send("gated", "a")
        self.worker.wait_for("in_a")
        self.worker.touch("child_may_go")
        end = time.monotonic() + DEADLINE
        while pathlib.Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            self.assertLess(time.monotonic(), end)  # it has ended its function, and then itself
            time.sleep(0.002)
        self.assertEqual(self.worker.begun(), (running, running))
        self.open_gate("a")
        self.assertEqual(self.worker.answer(running)[0], RESULT)
        self.assertEqual(self.call("collect", child), 74)
        self.worker.forget_printed()  # the child reports that its copy of the socket is closed


class LaterCalls(FirstCalls):
    with_loop = True


class Begun(unittest.TestCase):
    def test_a_worker_killed_at_random(self) -> None:
        """What its words deny has not run; what they call begun may have."""
        source = """
            import asyncio, os
            def mark(n): os.write(1, b"%d\\n" % n)
            async def mark_later(n): os.write(1, b"%d\\n" % n)
        """
        seed = int(os.environ.get("HATCHERY_SEED") or random.randrange(1 << 32))
        chance = random.Random(seed)
        for _ in range(8):
            with self.subTest(seed=seed), Worker(source, in_flight=64) as worker:
                worker.ready()
                for n in range(1, 65):
                    worker.send_call(chance.choice(["mark", "mark_later"]), [n])
                time.sleep(chance.random() * 0.004)
                worker.process.send_signal(signal.SIGKILL)
                worker.end()
                last, on_main = worker.begun()
                ran = [int(line) for line in worker.printed["stdout"].split()]
                self.assertLessEqual(max(ran, default=0), last)
                self.assertLessEqual(on_main, last)


class Storms(unittest.TestCase):
    def test_calls_and_cancels(self) -> None:
        storm.blow(self, 5000, 8)


class Ends(unittest.TestCase):
    def test_shutdown_comes_after_queued_calls(self) -> None:
        with Worker(SOURCE, in_flight=8) as worker:
            worker.ready()
            running = worker.send_call("gated", ["a"])
            worker.wait_for("in_a")
            queued = worker.send_call("same", [1])
            later = worker.send_call("waits", [3600])
            worker.send(frame(16))
            worker.touch("a")
            got = {}
            while len(got) < 3:
                _, call_id, body = worker.receive()
                got[call_id] = body
            self.assertEqual(got, {running: "a", queued: 1, later: CANCELLED})
            self.assertEqual(worker.end(), 0)

    def test_a_host_that_goes_away(self) -> None:
        with Worker(SOURCE, in_flight=8) as worker:
            worker.ready()
            for _ in range(4):
                worker.send_call("waits", [3600])
            worker.sock.close()
            self.assertEqual(worker.end(), 0)


if __name__ == "__main__":
    unittest.main()
