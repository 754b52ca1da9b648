"""Streams of a real worker: credit, ends of every kind, and what happens when nobody wants the items any more."""

from __future__ import annotations

import unittest
from typing import ClassVar

from tests.support import CANCELLED, CHUNK, END, ERROR, RESULT, STACK, Shared, Worker, frame

SOURCE = '''
import asyncio
import hatchery

log = []
leak = []

def note(text):
    log.append(text)

def logged():
    """What happened since it was asked for the last time."""
    happened = list(log)
    log.clear()
    return happened

def count(n, fail_at=None):
    for i in range(n):
        note(i)
        if i == fail_at:
            raise ValueError("half-way")
        yield i
    return "ignored"

async def count_later(n, fail_at=None):
    for i in range(n):
        note(i)
        await asyncio.sleep(0)
        if i == fail_at:
            raise ValueError("half-way")
        yield i

def forever(size=None):
    try:
        i = 0
        while True:
            yield i if size is None else "x" * size
            i += 1
    except BaseException as error:
        note(type(error).__name__)
        raise
    finally:
        note("finally")

async def forever_later(size=None):
    try:
        i = 0
        while True:
            await asyncio.sleep(0)
            yield i if size is None else "x" * size
            i += 1
    except BaseException as error:
        note(type(error).__name__)
        raise
    finally:
        await asyncio.sleep(0)
        note("finally")

async def never_waits():
    i = 0
    while True:
        yield i
        i += 1

def stubborn(how):
    for _ in range(3):
        try:
            yield 1
        except BaseException as error:
            note(type(error).__name__)
            if how == "return":
                return
            if how == "raise":
                raise KeyError("cleaning up")

async def stubborn_later(how):
    for _ in range(2):
        try:
            yield 1
        except BaseException as error:
            note(type(error).__name__)
            if how == "return":
                return
            if how == "raise":
                raise KeyError("cleaning up")

async def swallows_later():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            note("swallowed")
        yield 1

class Iterator:
    def __init__(self, n): self.n = n
    def __iter__(self): return self
    def __next__(self):
        if not self.n: raise StopIteration
        self.n -= 1
        return self.n

class AsyncIterator:
    def __init__(self, n): self.n = n
    def __aiter__(self): return self
    async def __anext__(self):
        if not self.n: raise StopAsyncIteration
        self.n -= 1
        return self.n

def make(kind, n):
    makers = {"sync": Iterator, "async": AsyncIterator, "map": lambda n: map(str, range(n)), "iter": iter}
    return makers[kind](range(n) if kind == "iter" else n)

async def make_later(kind, n):
    await asyncio.sleep(0)
    return {"sync": Iterator, "generator": count, "async": AsyncIterator, "async_generator": count_later}[kind](n)

def delegating(n):
    yield from count(n)

def odd(how):
    try:
        yield 1
        if how == "set": yield {1}
        if how == "large": yield "x" * 2_000_000
        if how == "stop": raise StopIteration
        if how == "exit": raise SystemExit(3)
        if how == "close": raise GeneratorExit
        yield 2
    finally:
        note("closed")

async def odd_later(how):
    try:
        yield 1
        if how == "set": yield {1}
        if how == "large": yield "x" * 2_000_000
        if how == "stop": raise StopAsyncIteration
        if how == "exit": raise SystemExit(3)
        yield 2
    finally:
        await asyncio.sleep(0)
        note("closed")

def with_context():
    state = hatchery.session()
    while True:
        state["n"] = state.get("n", 0) + 1
        hatchery.progress(state["n"])
        yield [hatchery.session()["n"], hatchery.deadline() is not None, hatchery.cancelled()]

async def with_context_later():
    state = hatchery.session()
    while True:
        state["n"] = state.get("n", 0) + 1
        hatchery.progress(state["n"])
        yield [hatchery.session()["n"], hatchery.deadline() is not None, hatchery.cancelled()]

def same(value): return value
async def same_later(value): return value
async def wait(): await asyncio.sleep(3600)

async def ticks(n):
    """How often other tasks get their turn is counted in the background."""
    async def tick():
        while True:
            await asyncio.sleep(0)
            ticks.n += 1
    ticks.n = 0
    ticks.task = asyncio.ensure_future(tick())
def ticked(): return ticks.n
async def stop_ticks(): ticks.task.cancel()
'''


class Streams(Shared):
    source = SOURCE
    options: ClassVar[dict] = {"max_frame_bytes": 1_500_000}

    def setUp(self) -> None:
        self.call("logged")

    def tearDown(self) -> None:
        self.assertEqual(self.call("same", 1), 1)
        self.assertEqual(self.call("same_later", 1), 1)

    def open(self, function: str, *args, credit: int = 1000, **options) -> int:
        return self.worker.send_call(function, list(args), credit=credit, **options)

    def read(self, function: str, *args, **options) -> tuple:
        return self.worker.items(self.open(function, *args, **options))

    def take(self, call_id: int, count: int) -> list:
        frames = [self.worker.answer(call_id) for _ in range(count)]
        self.assertEqual({kind for kind, _ in frames}, {CHUNK})
        return [item for _, item in frames]

    def test_to_the_end(self) -> None:
        for function, args in (
            ("count", [3]),
            ("count_later", [3]),
            ("delegating", [3]),
            ("make_later", ["generator", 3]),
            ("make_later", ["async_generator", 3]),
            ("make", ["iter", 3]),
        ):
            with self.subTest(function, args=args):
                self.assertEqual(self.read(function, *args), ([0, 1, 2], END, None))
        for function in ("make", "make_later"):
            for kind in ("sync", "async"):
                with self.subTest(function, kind=kind):
                    self.assertEqual(self.read(function, kind, 2), ([1, 0], END, None))
                    self.assertEqual(self.read(function, kind, 0), ([], END, None))
        self.assertEqual(self.read("make", "map", 2), (["0", "1"], END, None))

    def test_half_way(self) -> None:
        for function in ("count", "count_later"):
            with self.subTest(function):
                items, kind, error = self.read(function, 5, 2)
                self.assertEqual((items, kind, error["kind"]), ([0, 1], ERROR, "python"))
                self.assertEqual((error["type"], error["message"]), ("ValueError", "half-way"))
                self.assertRegex(
                    error["traceback"], r'\ATraceback \(most recent call last\):\n  File "[^"]*usermodule.py"'
                )

    def test_credit(self) -> None:
        for function in ("count", "count_later"):
            with self.subTest(function):
                self.call("logged")
                call_id = self.open(function, 6, credit=0)
                self.assertEqual(self.call("logged"), [])
                self.worker.credit(call_id, 2)
                self.assertEqual(self.take(call_id, 2), [0, 1])
                self.worker.send(frame(STACK, call_id=call_id))
                self.assertEqual(self.worker.answer(call_id)[0], STACK)
                self.assertEqual(self.call("logged"), [0, 1])  # not a step further than the credit; others are served
                self.worker.credit(call_id, 1)
                self.worker.credit(call_id, 1)
                self.assertEqual(self.take(call_id, 2), [2, 3])
                self.worker.credit(call_id, 2**32 - 1)
                self.assertEqual(self.worker.items(call_id), ([4, 5], END, None))
                self.worker.credit(call_id, 5)  # it is over

    def test_an_item_never_waits_for_the_next_step(self) -> None:
        source = """
            import os, time
            def steps():
                for i in range(3):
                    yield i
                    while not os.path.exists(f"go{i}"): time.sleep(0.001)
        """
        with Worker(source) as worker:
            worker.ready()
            call_id = worker.send_call("steps", credit=10)
            for i in range(3):
                self.assertEqual(worker.answer(call_id), (CHUNK, i))
                worker.touch(f"go{i}")
            self.assertEqual(worker.answer(call_id), (END, None))

    def test_never_ending_streams_stop_when_cancelled(self) -> None:
        raised = {"forever": "Cancelled", "forever_later": ("CancelledError", "GeneratorExit")}
        for function, error in raised.items():
            for credit in (3, 2**32 - 1):
                with self.subTest(function, credit=credit):
                    call_id = self.open(function, credit=credit)
                    self.assertEqual(self.take(call_id, 3), [0, 1, 2])
                    self.worker.cancel(call_id)
                    _, kind, answer = self.worker.items(call_id)
                    self.assertEqual((kind, answer), (ERROR, CANCELLED))
                    name, end = self.call("logged")
                    self.assertIn(name, error)
                    self.assertEqual(end, "finally")

    def test_large_items(self) -> None:
        for function in ("forever", "forever_later"):
            with self.subTest(function):
                call_id = self.open(function, 1_000_000, credit=4)
                self.assertEqual([len(item) for item in self.take(call_id, 4)], [1_000_000] * 4)
                self.assertEqual(self.worker.cancelled(call_id), CANCELLED)

    def test_generators_that_do_not_want_to_end(self) -> None:
        expectations = {
            "stubborn": ("Cancelled", {"return": None, "raise": "KeyError", "": "RuntimeError"}),
            "stubborn_later": ("GeneratorExit", {"return": "cancelled", "raise": "KeyError", "": "RuntimeError"}),
        }
        with Worker(SOURCE) as worker:  # Python prints what such generators do when they are collected
            worker.ready()
            for function, (raised, answers) in expectations.items():
                for how, expected in answers.items():
                    with self.subTest(function, how=how):
                        call_id = worker.send_call(function, [how], credit=1)
                        self.assertEqual(worker.answer(call_id), (CHUNK, 1))
                        answer = worker.cancelled(call_id)
                        self.assertEqual(answer and answer.get("type", answer["kind"]), expected)
                        self.assertEqual(worker.call("logged")[0], raised)
            self.assertEqual(worker.shutdown(), 0)

    def test_a_swallowed_cancel_ends_the_stream_at_its_next_item(self) -> None:
        call_id = self.open("swallows_later", credit=5)
        self.assertEqual(self.call("logged"), [])
        self.assertEqual(self.worker.cancelled(call_id), CANCELLED)
        self.assertEqual(self.call("logged"), ["swallowed"])

    def test_cancel_before_the_first_step(self) -> None:
        for function in ("forever", "forever_later", "make"):
            with self.subTest(function):
                args = ["sync", 5] if function == "make" else []
                call_id = self.open(function, *args, credit=0)
                self.assertEqual(self.worker.cancelled(call_id), CANCELLED)
                self.assertEqual(self.call("logged"), [])

    def test_items_that_cannot_be_sent(self) -> None:
        for function in ("odd", "odd_later"):
            items, kind, error = self.read(function, "set")
            self.assertEqual((items, kind, error["kind"]), ([1], ERROR, "encode"))
            self.assertIn("item is a set;", error["message"])
            self.assertEqual(self.call("logged"), ["closed"])
            items, kind, error = self.read(function, "large")
            self.assertEqual((items, kind, error["kind"]), ([1], ERROR, "frame_too_large"))
            self.assertEqual(self.call("logged"), ["closed"])

    def test_odd_ends(self) -> None:
        for how, name in {"stop": "RuntimeError", "exit": "SystemExit", "close": "GeneratorExit"}.items():
            items, kind, error = self.read("odd", how)
            self.assertEqual((items, kind, error["type"]), ([1], ERROR, name))
        for how, name in {"stop": "RuntimeError", "exit": "SystemExit"}.items():
            items, kind, error = self.read("odd_later", how)
            self.assertEqual((items, kind, error["type"]), ([1], ERROR, name))

    def test_streams_and_results_are_not_confused(self) -> None:
        for function in ("same", "same_later"):
            items, kind, error = self.read(function, [1])
            self.assertEqual((items, kind, error["kind"]), ([], ERROR, "encode"))
            self.assertIn("result is a list, not an iterator", error["message"])
        for function, args in (("count", [1]), ("count_later", [1]), ("make", ["map", 1]), ("make", ["sync", 1])):
            error = self.call(function, *args)
            self.assertEqual(error["kind"], "encode")
            self.assertIn("as a stream", error["message"])
        self.assertEqual(self.read("count", "1", 2, 3)[2]["kind"], "arguments")
        self.assertEqual(self.read("cuont")[2], {"kind": "no_such_function", "name": "cuont", "similar": ["count"]})
        self.assertEqual(self.call("logged"), [])

    def test_several_at_once_keep_their_contexts(self) -> None:
        opened = {}
        for name in ("alice", "bob"):
            for function in ("with_context", "with_context_later"):
                options = {"session": name + function, "progress": name == "bob"}
                opened[self.open(function, credit=0, timeout_ms=50_000 * (name == "alice"), **options)] = name
        for n in range(1, 4):
            for call_id, name in opened.items():
                self.worker.credit(call_id, 1)
                if name == "bob":
                    self.assertEqual(self.worker.answer(call_id)[1], n)
                self.assertEqual(self.worker.answer(call_id), (CHUNK, [n, name == "alice", False]))
        for call_id in opened:
            self.assertEqual(self.worker.cancelled(call_id), CANCELLED)

    def test_other_tasks_get_their_turn(self) -> None:
        self.assertIsNone(self.call("ticks", 1))
        for function in ("forever", "never_waits"):
            with self.subTest(function):
                before = self.call("ticked")
                call_id = self.open(function, credit=2**32 - 1)
                self.take(call_id, 20_000)
                self.worker.cancel(call_id)
                _, kind, answer = self.worker.items(call_id)
                self.assertEqual((kind, answer), (ERROR, CANCELLED))
                self.assertGreater(self.call("ticked"), before + 3)
        self.assertIsNone(self.call("stop_ticks"))

    def test_an_open_stream_ends_with_the_worker(self) -> None:
        source = """
            import asyncio
            def count():
                try:
                    yield 1
                finally:
                    print("sync")
            async def count_later():
                try:
                    yield 1
                finally:
                    await asyncio.sleep(0)
                    print("async")
        """
        for how in ("shutdown", "close"):
            with self.subTest(how), Worker(source) as worker:
                worker.ready()
                opened = []
                for name in ("count", "count_later"):
                    opened.append(worker.send_call(name, credit=1))
                    self.assertEqual(worker.answer(opened[-1]), (CHUNK, 1))
                if how == "close":
                    worker.sock.close()
                    self.assertEqual(worker.end(), 0)
                else:
                    self.assertEqual(worker.shutdown(), 0)
                    self.assertEqual([worker.answer(call_id) for call_id in opened], [(ERROR, CANCELLED)] * 2)
                self.assertEqual(worker.printed, {"stdout": b"sync\nasync\n", "stderr": b""})


class WithoutALoop(unittest.TestCase):
    """The main thread alone: no event loop has been made yet."""

    def test_the_worker_serves_others_while_a_stream_waits(self) -> None:
        with Worker("def count():\n    yield from range(10**9)\ndef same(value): return value\n") as worker:
            worker.ready()
            streams = [worker.send_call("count", credit=1) for _ in range(3)]
            for call_id in streams:
                self.assertEqual(worker.answer(call_id), (CHUNK, 0))
            for n in range(1, 5):
                for call_id in streams:
                    worker.credit(call_id, 1)
                    self.assertEqual(worker.answer(call_id), (CHUNK, n))
                self.assertEqual(worker.answer(worker.send_call("same", [n])), (RESULT, n))
            for call_id in streams:
                self.assertEqual(worker.cancelled(call_id), CANCELLED)
            self.assertEqual(worker.shutdown(), 0)

    def test_references_are_dropped(self) -> None:
        source = """
            import weakref
            class Big(dict): pass
            seen = []
            def make():
                while True:
                    big = Big(a=1)
                    seen.append(weakref.ref(big))
                    yield big
                    del big
            def alive(): return sum(ref() is not None for ref in seen)
        """
        with Worker(source) as worker:
            worker.ready()
            call_id = worker.send_call("make", credit=2)
            self.assertEqual([worker.answer(call_id)[0] for _ in "12"], [CHUNK] * 2)
            self.assertEqual(worker.call("alive"), 1)  # the generator's own
            self.assertEqual(worker.cancelled(call_id), CANCELLED)
            self.assertEqual(worker.call("alive"), 0)


if __name__ == "__main__":
    unittest.main()
