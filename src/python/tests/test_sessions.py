"""Sessions: a dict that belongs to a name, from its first call to its end."""

from __future__ import annotations

import json
import unittest

from tests.support import CANCELLED, CHUNK, ERROR, RESULT, SESSION_END, Shared, Worker, frame

SOURCE = """
import asyncio, pathlib, time
import hatchery

ended = []
how = "well"

def put(key, value):
    hatchery.session()[key] = value

def get(key=None):
    state = hatchery.session()
    return state if key is None else state.get(key)

async def put_later(key, value):
    state = hatchery.session()
    await asyncio.sleep(0)
    assert state is hatchery.session()
    state[key] = value

def no_session(): return hatchery.session()

def ask_before_call():
    return problem

try:
    hatchery.session()
except RuntimeError as error:
    problem = str(error)

def remember(way):
    global how
    how = way

def ends():
    happened = list(ended)
    ended.clear()
    return happened

@hatchery.on_session_end
def first(name, state):
    ended.append(["first", name, dict(state), hatchery.session() is state])
    if how == "badly": raise ValueError("first")
    if how == "hang":
        pathlib.Path("here").touch()
        time.sleep(3600)
    if how == "exit": raise SystemExit(3)

@hatchery.on_session_end
async def second(name, state):
    await asyncio.sleep(0)
    ended.append(["second", name, hatchery.session() is state])
    if how == "badly": raise KeyError("second")
    if how == "hang later":
        pathlib.Path("here").touch()
        await asyncio.sleep(3600)

def stream():
    while True:
        hatchery.session()["n"] = hatchery.session().get("n", 0) + 1
        yield hatchery.session()["n"]
"""


class Sessions(Shared):
    source = SOURCE

    def call(self, function: str, *args, **options) -> object:
        return self.worker.answer(self.worker.send_call(function, list(args), **options))[1]

    def send_end(self, name: str, cause: str = "ended") -> int:
        call_id = self.worker.send_call("get")  # takes the next id
        self.assertEqual(self.worker.answer(call_id)[0], ERROR)
        body = json.dumps({"session": name, "cause": cause}).encode()
        self.worker.send(frame(SESSION_END, body, call_id=call_id, number=5000))
        return call_id

    def end(self, name: str, cause: str = "ended") -> tuple[int, object]:
        return self.worker.answer(self.send_end(name, cause))

    def test_a_dict_for_each_name(self) -> None:
        self.call("put", "k", 1, session="alice")
        self.call("put_later", "k", 2, session="bob")
        self.assertEqual(self.call("get", session="alice"), {"k": 1})
        self.assertEqual(self.call("get", session="bob"), {"k": 2})
        self.assertEqual(self.call("get", session=""), {})
        self.assertEqual(self.call("get", session="Grüße 👋"), {})
        for name in ("alice", "bob"):
            self.assertEqual(self.end(name), (RESULT, None))
            self.assertEqual(self.call("get", session=name), {})
            self.assertEqual(self.end(name, "expired"), (RESULT, None))
        self.call("ends")

    def test_without_a_session(self) -> None:
        error = self.call("no_session")
        self.assertEqual(error["type"], "RuntimeError")
        self.assertIn("belongs to no session", error["message"])
        self.assertIn("no call runs here", self.call("ask_before_call"))

    def test_hooks(self) -> None:
        self.call("put", "k", 1, session="s")
        self.assertEqual(self.end("s", "evicted"), (RESULT, None))
        self.assertEqual(self.call("ends"), [["first", "s", {"k": 1}, True], ["second", "s", True]])
        self.assertEqual(self.end("s"), (RESULT, None))  # it is unknown by now
        self.assertEqual(self.end("never was"), (RESULT, None))
        self.assertEqual(self.call("ends"), [])

    def test_a_session_whose_calls_never_asked_for_it_ends_too(self) -> None:
        self.call("remember", "well", session="quiet")
        self.assertEqual(self.end("quiet"), (RESULT, None))
        self.assertEqual(len(self.call("ends")), 2)

    def test_hooks_that_raise(self) -> None:
        for how, name in {"badly": "ValueError", "exit": "SystemExit"}.items():
            self.call("remember", how)
            self.call("put", "k", 1, session="s")
            kind, error = self.end("s")
            self.assertEqual((kind, error["kind"], error["type"]), (ERROR, "python", name))
            self.assertRegex(error["traceback"], r'File "[^"]*usermodule.py", line \d+, in first')
            self.assertEqual(len(self.call("ends")), 2)  # the second ran all the same
            self.assertEqual(self.call("get", session="s"), {})  # and the state is gone
            self.call("remember", "well")
            self.end("s")
            self.call("ends")

    def test_hooks_that_hang(self) -> None:
        for how in ("hang", "hang later"):
            self.call("remember", how)
            self.call("put", "k", 1, session="s")
            call_id = self.send_end("s")
            self.worker.wait_for("here")
            self.assertEqual(self.worker.cancelled(call_id), CANCELLED)
            self.call("remember", "well")
            self.assertEqual(self.call("get", session="s"), {})
            self.end("s")
            self.call("ends")

    def test_a_stream_keeps_the_dict_of_a_session_that_ended(self) -> None:
        call_id = self.worker.send_call("stream", credit=1, session="s")
        self.assertEqual(self.worker.answer(call_id), (CHUNK, 1))
        self.end("s")
        self.worker.credit(call_id, 1)
        self.assertEqual(self.worker.answer(call_id), (CHUNK, 2))
        self.assertEqual(self.call("get", "n", session="s"), None)
        self.assertEqual(self.worker.cancelled(call_id), CANCELLED)
        self.end("s")
        self.call("ends")

    def test_state_is_dropped(self) -> None:
        source = """
            import gc, weakref
            import hatchery
            gc.disable()
            class Big: pass
            seen = []
            def keep():
                hatchery.session()["big"] = big = Big()
                seen.append(weakref.ref(big))
            @hatchery.on_session_end
            async def end(name, state):
                if name == "bad": raise ValueError
            def alive(): return sum(ref() is not None for ref in seen)
        """
        with Worker(source) as worker:
            worker.ready()
            for call_id, name in ((1000, "good"), (1001, "bad")):
                worker.answer(worker.send_call("keep", session=name))
                self.assertEqual(worker.call("alive"), 1)
                worker.send(frame(SESSION_END, json.dumps({"session": name}).encode(), call_id=call_id))
                self.assertEqual(worker.answer(call_id)[0], RESULT if name == "good" else ERROR)
                self.assertEqual(worker.call("alive"), 0)


if __name__ == "__main__":
    unittest.main()
