"""Context variables: what a call sets, no other call sees."""

from __future__ import annotations

import json
import unittest

from tests.support import CHUNK, END, RESULT, SESSION_END, Worker, frame

SOURCE = """
import asyncio, decimal, functools
from contextvars import ContextVar
import hatchery

var = ContextVar("var", default="unset")
started = ContextVar("started")
ended = []

@hatchery.on_start
def start(): started.set("by a hook")

@hatchery.on_session_end
def forget(name, state):
    ended.append([var.get(), started.get()])
    var.set("at an end")

def look(): return [var.get(), started.get(), decimal.getcontext().prec]

async def look_later():
    await asyncio.sleep(0)
    return look()

def replace(value):
    decimal.getcontext().prec = 5
    before = look()[:2]
    var.set(value)
    started.set(value)
    return before

async def replace_later(value):
    before = replace(value)
    await asyncio.sleep(0)
    return before

def replace_and_look_later(value):
    replace(value)
    return look_later()

def steps(value):
    try:
        yield replace(value)[0]
        yield var.get()
    finally:
        ended.append(var.get())

async def steps_later(value):
    for step in steps(value): yield step

async def returns_steps(value):
    replace(value)
    return steps("other")

def fails(value):
    replace(value)
    raise ValueError

def in_session(): return replace("in a session")
def has_ended(): return [ended.pop() for _ in list(ended)]
"""


class Contexts(unittest.TestCase):
    def test_each_call_has_its_own(self) -> None:
        fresh = ["unset", "by a hook", 28]
        for hello in ({}, {"in_flight": 8}, {"in_flight": 8, "threads": 2}):
            with self.subTest(hello), Worker(SOURCE, **hello) as worker:
                worker.ready()
                for function in ("replace", "replace_later"):
                    self.assertEqual(worker.call(function, "a"), fresh[:2])
                    self.assertEqual(worker.call(function, "b"), fresh[:2])
                    call_id = worker.send_call(function, ["c"], request_id="r")  # options take another way
                    self.assertEqual(worker.answer(call_id), (RESULT, fresh[:2]))
                self.assertEqual(worker.call("replace", value="d"), fresh[:2])
                self.assertEqual(worker.call("look"), fresh)
                self.assertEqual(worker.call("fails", "d")["type"], "ValueError")
                self.assertEqual(worker.call("replace_and_look_later", "e"), ["e", "e", 5])
                for function in ("look", "look_later"):
                    self.assertEqual(worker.call(function), fresh)

    def test_all_steps_of_a_stream_share_one(self) -> None:
        for hello in ({}, {"in_flight": 8}, {"in_flight": 8, "threads": 2}):
            with self.subTest(hello), Worker(SOURCE, **hello) as worker:
                worker.ready()
                for function in ("steps", "steps_later"):
                    streams = {worker.send_call(function, [name], credit=1): name for name in "ab"}
                    for _ in streams:
                        kind, _, value = worker.receive()
                        self.assertEqual((kind, value), (CHUNK, "unset"))
                    self.assertEqual(worker.call("look")[0], "unset")
                    for call_id, name in streams.items():
                        worker.credit(call_id, 2)
                        self.assertEqual(worker.receive(), (CHUNK, call_id, name))
                        self.assertEqual(worker.receive(), (END, call_id, None))
                    self.assertEqual(sorted(worker.call("has_ended")), ["a", "b"])
                call_id = worker.send_call("returns_steps", ["a"], credit=9)
                self.assertEqual(worker.items(call_id)[0], ["a", "other"])
                call_id = worker.send_call("steps", ["dropped"], credit=1)
                self.assertEqual(worker.answer(call_id), (CHUNK, "unset"))
                worker.cancelled(call_id)
                self.assertIn("dropped", worker.call("has_ended"))
                self.assertEqual(worker.call("look")[0], "unset")

    def test_hooks_of_a_session(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            for name in ("alice", "bob"):
                call_id = worker.send_call("in_session", session=name)
                self.assertEqual(worker.answer(call_id), (RESULT, ["unset", "by a hook"]))
                worker.send(frame(SESSION_END, json.dumps({"session": name}).encode(), call_id=900, number=5000))
                self.assertEqual(worker.answer(900), (RESULT, None))
            self.assertEqual(worker.call("has_ended"), [["unset", "by a hook"]] * 2)


if __name__ == "__main__":
    unittest.main()
