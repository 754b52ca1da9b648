"""Sessions: a dict that belongs to a name, from its first call to its end."""

from __future__ import annotations

import json
import unittest

from tests.support import CALL, CANCELLED, CHUNK, ERROR, RESULT, SESSION_END, Shared, Worker, frame

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


class CallsBehindAnEnd(unittest.TestCase):
    """Calls that are sent right behind the end of their session begin a new one."""

    source = """
        import asyncio, os, pathlib, time
        import hatchery
        ended = []
        def put(value):
            hatchery.session()["old"] = value
        def look():
            state = hatchery.session()
            seen, state["new"] = dict(state), 1
            return seen
        async def look_later():
            seen = look()
            await asyncio.sleep(0)
            return [seen, hatchery.session()]
        def hold():
            pathlib.Path("holds").touch()
            while not os.path.exists("go"): time.sleep(0.001)
            os.unlink("go")
        def ask():
            hatchery.call_host("f")
        @hatchery.on_session_end
        def end(name, state): ended.append([name, dict(state)])
        @hatchery.on_session_end
        async def end_later(name, state): await asyncio.sleep(0)
        def told(): return ended
        def forget(): ended.pop()
    """

    def check(self, function: str, new: object, before: str = "", **options) -> None:
        with Worker(self.source, **options) as worker:
            worker.ready()
            for value in range(3):
                worker.answer(worker.send_call("put", [value], session="s"))
                busy = worker.send_call(before) if before else 0
                if before == "hold":
                    worker.wait_for("holds")
                elif before == "ask":
                    number = worker.receive()[1]
                end_id, call_id = 100 + value, 200 + value
                end = frame(SESSION_END, json.dumps({"session": "s"}).encode(), call_id=end_id)
                call = json.dumps([function, None, None, {"session": "s"}]).encode()
                worker.send(end + frame(CALL, call, call_id=call_id))
                answers = {}
                if before == "ask":
                    if function == "look_later":  # which has begun when it is answered, and the end has not
                        answers[call_id] = worker.answer(call_id)
                    worker.send_host_result(number)
                elif before:
                    worker.touch("go")
                while len(answers) < (3 if before else 2):
                    kind, answered, body = worker.receive()
                    answers[answered] = kind, body
                self.assertEqual(answers.pop(busy, None), (RESULT, None) if before else None)
                self.assertEqual(answers, {end_id: (RESULT, None), call_id: (RESULT, new)})
                self.assertEqual(worker.call("told")[value:], [["s", {"old": value}]])
                self.assertEqual(worker.answer(worker.send_call("look", session="s")), (RESULT, {"new": 1}))
                worker.send(frame(SESSION_END, json.dumps({"session": "s"}).encode(), call_id=300 + value))
                self.assertEqual(worker.answer(300 + value), (RESULT, None))
                self.assertEqual(worker.call("told").pop(), ["s", {"new": 1}])
                worker.call("forget")

    def test_of_synchronous_functions(self) -> None:
        for before in ("", "hold", "ask"):
            self.check("look", {}, before)
            self.check("look", {}, before, in_flight=8)

    def test_of_asynchronous_functions(self) -> None:
        for before in ("", "hold", "ask"):
            self.check("look_later", [{}, {"new": 1}], before, in_flight=8)

    def test_in_threads(self) -> None:
        for function, new in (("look", {}), ("look_later", [{}, {"new": 1}])):
            self.check(function, new, in_flight=8, threads=2)


if __name__ == "__main__":
    unittest.main()
