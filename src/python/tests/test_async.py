"""Asynchronous functions: one loop for all of them, in which no synchronous function runs."""

from __future__ import annotations

import unittest

from tests.support import CANCELLED, CHUNK, DEADLINE, END, ERROR, RESULT, STACK, Shared, Worker, frame

SOURCE = '''
import asyncio, contextvars, functools, os, pathlib, sys, threading, time
import hatchery

log = []
var = contextvars.ContextVar("var", default=None)

def logged():
    happened = list(log)
    log.clear()
    return happened

def here(): pathlib.Path("here").touch()
def same(value): return value
async def same_later(value):
    await asyncio.sleep(0)
    return value
async def at_once(value): return value

gates = {}
async def gated(name, value):
    """Wait until the gate is opened."""
    event = gates.setdefault(name, asyncio.Event())
    await event.wait()
    return value
async def gated_by_thread(seconds):
    here()
    await asyncio.to_thread(time.sleep, seconds)
    return "waited"
async def open_gate(name): gates.setdefault(name, asyncio.Event()).set()

async def forever():
    here()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        log.append(["cancelled", hatchery.cancelled()])
        raise
    finally:
        await asyncio.sleep(0.01)
        log.append("cleaned up")

async def swallows():
    here()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        pass
    return "went on"

async def converts():
    here()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        raise KeyError("converted") from None

async def never(): await asyncio.Event().wait()

async def cancels_itself():
    asyncio.current_task().cancel()
    await asyncio.sleep(0)

async def raises(name): raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "stop": GeneratorExit}[name](3)

async def raises_in_the_background(name):
    async def soon(): raise {"exit": SystemExit, "interrupt": KeyboardInterrupt}[name]("background")
    raises_in_the_background.task = asyncio.ensure_future(soon())
    await asyncio.sleep(0.01)
    return name

def runs_its_own():
    async def main():
        await asyncio.sleep(0)
        return asyncio.get_running_loop() is not loops[0]
    return asyncio.run(main())

def makes_its_own():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(same_later(5))
    finally:
        loop.close()

loops = []
async def keep_loop(): loops.append(asyncio.get_running_loop())
def running(): return asyncio._get_running_loop() is not None
def stop_it(): loops[-1].stop()
async def stop_later():
    loops[-1].stop()
    await asyncio.sleep(0)
    loops[-1].stop()
    return "stopped"
def close_it(): loops[-1].close()
def use_it(): return loops[-1].run_until_complete(same_later(6))
def set_none(): asyncio.set_event_loop(None)

def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        log.append(asyncio._get_running_loop() is None)
        return function(*args)
    return wrapper

@decorated
async def decorated_later(value):
    await asyncio.sleep(0)
    return value

@decorated
async def decorated_stream(n):
    for i in range(n): yield i

class Class:
    async def method(self, value):
        await asyncio.sleep(0)
        return [value, asyncio.get_running_loop() is loops[0]]
    async def __call__(self, value): return value
method = Class().method
partial = functools.partial(Class().method, 7)
instance = Class()

async def background():
    async def run():
        background.n = 0
        while True:
            await asyncio.sleep(0)
            background.n += 1
    background.task = asyncio.ensure_future(run())
async def background_count(): return background.n
def background_count_now(): return background.n
async def background_stop(): background.task.cancel()

async def in_thread():
    seen = await asyncio.to_thread(lambda: [hatchery.session(), threading.current_thread() is threading.main_thread()])
    return seen

async def executor():
    return await asyncio.get_running_loop().run_in_executor(None, os.getpid)

async def child():
    process = await asyncio.create_subprocess_exec("echo", "hello", stdout=-1)
    return (await process.communicate())[0].decode()

async def context(n):
    hatchery.session()["n"] = n
    seen = []
    for _ in range(5):
        hatchery.progress(n)
        seen.append(hatchery.session()["n"])
        await asyncio.gather(*[asyncio.create_task(inner(seen)) for _ in range(2)])
    return seen
async def inner(seen):
    await asyncio.sleep(0)
    seen.append(hatchery.session()["n"])

async def set_var(value):
    before = var.get()
    var.set(value)
    return before

def fork():
    child = os.fork()
    if child == 0: return "child"
    return os.waitpid(child, 0)[1] >> 8

async def fork_later():
    child = os.fork()
    if child == 0: os._exit(9)
    return os.waitpid(child, 0)[1] >> 8

def endless_stream():
    while True: yield 1

async def gives_sync_stream(n):
    await asyncio.sleep(0)
    def steps():
        for i in range(n):
            log.append(asyncio._get_running_loop() is None)
            yield i
    return steps()

__all__ = [name for name, value in list(globals().items()) if callable(value) and name[0] != "_" and value is not Class]
'''


class Async(Shared):
    source = SOURCE

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.worker.call("keep_loop")

    def setUp(self) -> None:
        self.call("logged")

    def tearDown(self) -> None:
        self.assertEqual(self.call("same", 1), 1)
        self.assertEqual(self.call("same_later", 1), 1)
        self.assertTrue(self.worker.quiet())

    def test_synchronous_functions_run_outside_of_the_loop(self) -> None:
        for _ in range(3):
            self.assertEqual(self.call("running"), False)
            self.assertEqual(self.call("runs_its_own"), True)
            self.assertEqual(self.call("makes_its_own"), 5)
            self.assertEqual(self.call("same_later", 2), 2)
            self.assertEqual(self.call("at_once", 2), 2)

    def test_what_is_asynchronous(self) -> None:
        self.assertEqual(self.call("decorated_later", 3), 3)
        self.assertEqual(self.call("logged"), [True])
        call_id = self.worker.send_call("decorated_stream", [2], credit=9)
        self.assertEqual(self.worker.items(call_id)[0], [0, 1])
        self.assertEqual(self.call("logged"), [True])
        self.assertEqual(self.call("method", 3), [3, True])
        self.assertEqual(self.call("partial"), [7, True])
        self.assertEqual(self.call("instance", 4), 4)
        self.assertEqual(self.call("same_later", 1, 2)["kind"], "arguments")

    def test_several_at_a_time_are_answered_as_they_end(self) -> None:
        calls = [self.worker.send_call("gated", [name, name]) for name in "abc"]
        for name, call_id in sorted(zip("bac", [calls[1], calls[0], calls[2]])):
            opening = self.worker.send_call("open_gate", [name])
            answers = {self.worker.receive() for _ in "12"}
            self.assertEqual(answers, {(RESULT, opening, None), (RESULT, call_id, name)})

    def test_synchronous_calls_between(self) -> None:
        call_id = self.worker.send_call("gated", ["between", 1])
        for n in range(50):
            self.assertEqual(self.call("same", n), n)
        together = [self.worker.send_call(name, [n]) for n in range(20) for name in ("same", "same_later")]
        answers = [self.worker.receive() for _ in together]
        self.assertEqual(
            {answered: body for _, answered, body in answers}, {n: (n - together[0]) // 2 for n in together}
        )
        self.call_opens("between", call_id)

    def call_opens(self, gate: str, call_id: int) -> None:
        opening = self.worker.send_call("open_gate", [gate])
        self.assertEqual({self.worker.receive()[1] for _ in "12"}, {opening, call_id})

    def test_cancel(self) -> None:
        call_id = self.worker.send_call("forever")
        self.worker.wait_for("here")
        self.assertEqual(self.worker.cancelled(call_id), CANCELLED)
        self.assertEqual(self.call("logged"), [["cancelled", True], "cleaned up"])
        call_id = self.worker.send_call("swallows")
        self.worker.wait_for("here")
        self.assertEqual(self.worker.cancelled(call_id), "went on")
        call_id = self.worker.send_call("converts")
        self.worker.wait_for("here")
        self.assertEqual(self.worker.cancelled(call_id)["type"], "KeyError")

    def test_cancel_hits_its_own_call(self) -> None:
        calls = [self.worker.send_call("never") for _ in range(5)]
        waits = self.worker.send_call("gated", ["mine", 1])
        for call_id in calls[::-1]:
            self.worker.send(frame(8, call_id=call_id) * 2)
            self.worker.poke()
            self.assertEqual(self.worker.answer(call_id), (ERROR, CANCELLED))
        self.call_opens("mine", waits)

    def test_cancel_that_comes_with_the_call(self) -> None:
        for function in ("forever", "decorated_later"):
            args = b"[1]" if function == "decorated_later" else b"null"
            call = frame(3, b'["%s",%s,null]' % (function.encode(), args), call_id=777)
            self.worker.send(call + frame(8, call_id=777))
            self.assertEqual(self.worker.receive(), (ERROR, 777, CANCELLED))
        self.assertEqual(self.call("logged"), [])  # neither was begun

    def test_not_cancelled_by_us(self) -> None:
        error = self.call("cancels_itself")
        self.assertEqual((error["kind"], error["type"]), ("python", "asyncio.exceptions.CancelledError"))

    def test_what_is_no_exception_of_the_usual_kind(self) -> None:
        for name, kind in {"exit": "SystemExit", "interrupt": "KeyboardInterrupt", "stop": "GeneratorExit"}.items():
            self.assertEqual(self.call("raises", name)["type"], kind)

    def test_the_background(self) -> None:
        self.assertIsNone(self.call("background"))
        before = self.call("background_count")
        self.assertGreater(self.call("background_count"), before)
        before = self.call("background_count_now")
        self.assertGreater(self.call("background_count_now"), before)
        self.assertIsNone(self.call("background_stop"))

    def test_background_tasks_that_leave(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            for name in ("exit", "interrupt"):
                self.assertEqual(worker.call("raises_in_the_background", name), name)
                self.assertEqual(worker.call("same", 1), 1)
            self.assertEqual(worker.shutdown(), 0)
            self.assertIn(b"SystemExit: background", worker.printed["stderr"])

    def test_a_loop_that_user_code_stops_or_runs(self) -> None:
        for _ in range(2):
            self.assertIsNone(self.call("stop_it"))
            self.assertEqual(self.call("stop_later"), "stopped")
            self.assertEqual(self.call("use_it"), 6)
            self.assertIsNone(self.call("set_none"))
            self.assertEqual(self.call("same_later", 1), 1)

    def test_a_loop_that_user_code_closes(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            worker.call("keep_loop")
            waits = worker.send_call("never")
            closes = worker.send_call("close_it")
            self.assertEqual(worker.receive(), (RESULT, closes, None))
            self.assertEqual(worker.answer(waits)[1]["message"], "the worker's event loop was closed by user code")
            self.assertEqual(worker.call("same_later", 1), 1)
            self.assertEqual(worker.shutdown(), 0)

    def test_threads_and_children(self) -> None:
        call_id = self.worker.send_call("in_thread", session="s")
        self.assertEqual(self.worker.answer(call_id), (RESULT, [{}, False]))
        self.assertEqual(self.call("executor"), self.worker.process.pid)
        self.assertEqual(self.call("child"), "hello\n")

    def test_contexts(self) -> None:
        calls = {self.worker.send_call("context", [n], session=f"s{n}", progress=n != 1): n for n in range(3)}
        progress = dict.fromkeys(calls.values(), 0)
        while calls:
            kind, call_id, body = self.worker.receive()
            if kind == RESULT:
                self.assertEqual(set(body), {calls.pop(call_id)})
            else:
                self.assertEqual(body, calls[call_id])
                progress[body] += 1
        self.assertEqual(progress, {0: 5, 1: 0, 2: 5})
        self.assertEqual([self.call("set_var", n) for n in range(3)], [None] * 3)

    def test_forks(self) -> None:
        with Worker(SOURCE) as worker:  # the children say that they have no connection
            worker.ready()
            self.assertEqual(worker.call("executor"), worker.process.pid)
            for _ in range(3):
                self.assertEqual(worker.call("fork"), 74)
                self.assertEqual(worker.call("executor"), worker.process.pid)  # which wakes the loop from a thread
                self.assertEqual(worker.call("fork_later"), 9)
                self.assertEqual(worker.call("executor"), worker.process.pid)
            self.assertEqual(worker.shutdown(), 0)

    def test_a_synchronous_stream_of_an_asynchronous_function(self) -> None:
        call_id = self.worker.send_call("gives_sync_stream", [3], credit=2)
        self.assertEqual([self.worker.answer(call_id) for _ in "12"], [(CHUNK, 0), (CHUNK, 1)])
        self.worker.credit(call_id, 2)
        self.assertEqual(self.worker.items(call_id)[0], [2])
        self.assertEqual(self.call("logged"), [True] * 3)

    def test_stacks(self) -> None:
        call_id = self.worker.send_call("forever")
        self.worker.wait_for("here")
        self.worker.send(frame(STACK, call_id=call_id))
        kind, text = self.worker.answer(call_id)
        self.assertEqual(kind, STACK)
        self.assertRegex(
            text, r'\A  File "[^"]*usermodule.py", line \d+, in forever\n    await asyncio.sleep\(3600\)\n'
        )
        self.worker.send(
            frame(STACK, call_id=call_id - 1) + frame(STACK, call_id=10**9)
        )  # they are over, or never were
        self.assertEqual(self.worker.cancelled(call_id), CANCELLED)

    def test_large_calls_do_not_stop_the_loop(self) -> None:
        """A task goes on while a frame is on its way."""
        waits = self.worker.send_call("gated_by_thread", [0.05])
        self.worker.wait_for("here")
        data = frame(3, b'["same_later",["%s"],null]' % (b"x" * 5_000_000), call_id=778)
        self.worker.send(data[:-1])
        self.assertEqual(self.worker.answer(waits), (RESULT, "waited"))
        self.worker.send(data[-1:])
        kind, call_id, body = self.worker.receive()
        self.assertEqual((kind, call_id, len(body)), (RESULT, 778, 5_000_000))

    def test_references_are_dropped(self) -> None:
        source = """
            import asyncio, gc, weakref
            class Big(dict): pass
            seen = []
            async def make():
                await asyncio.sleep(0)
                big = Big(a=1)
                seen.append(weakref.ref(big))
                return big
            async def fail():
                big = Big(a=1)
                seen.append(weakref.ref(big))
                raise ValueError
            def alive(): return sum(ref() is not None for ref in seen)
            gc.disable()
        """
        with Worker(source) as worker:
            worker.ready()
            for function in ("make", "fail"):
                worker.call(function)
                self.assertEqual(worker.call("alive"), 0, function)

    def test_whatever_can_be_awaited_is_awaited(self) -> None:
        source = """
            import asyncio, types
            loops = []
            async def keep_loop(): loops.append(asyncio.get_running_loop())
            async def later(value):
                await asyncio.sleep(0)
                return value
            class Awaitable:
                def __init__(self, value): self.value = value
                def __await__(self): return later(self.value).__await__()
            def awaitable(value): return Awaitable(value)
            async def of_awaitable(value): return await Awaitable(value)
            def future(value):
                future = loops[0].create_future()
                loops[0].call_soon(future.set_result, value)
                return future
            def task(value): return loops[0].create_task(later(value))
            @types.coroutine
            def marked(value): return (yield from later(value).__await__())
            class Failing:
                def __await__(self):
                    raise KeyError("awaited")
                    yield
            def failing(value): return Failing()
            async def gives_one(value): return Awaitable(value)
        """
        for options in ({}, {"in_flight": 8}, {"in_flight": 8, "threads": 2}):
            with self.subTest(**options), Worker(source, **options) as worker:
                worker.ready()
                worker.call("keep_loop")
                for function in ("later", "awaitable", "of_awaitable", "future", "marked", "task"):
                    if function in ("future", "task") and options.get("threads"):
                        continue  # asyncio's own rule: they belong to the loop's thread
                    for value in (1, {"a": [function]}, None, "x" * 100_000):
                        self.assertEqual(worker.call(function, value), value, function)
                self.assertEqual(worker.call("failing", 1)["type"], "KeyError")
                # What a coroutine returns is its result, which is not awaited in turn.
                self.assertEqual(worker.call("gives_one", 1)["kind"], "encode")

    def test_frames_that_break_the_protocol_within_the_loop(self) -> None:
        for data, says in ((b"\0\0\0\0", "shorter"), (frame(13), "kind 13"), (frame(8, b"1", call_id=1), "no body")):
            with self.subTest(says), Worker(SOURCE) as worker:
                worker.ready()
                worker.call("at_once", 1)
                worker.send(frame(3, b'["at_once",[2],null]', call_id=5) + data)
                answers = [worker.receive() for _ in "12"]
                self.assertIn((RESULT, 5, 2), answers)
                self.assertIn("protocol", [body["kind"] for kind, _, body in answers if kind == ERROR])
                self.assertEqual(worker.end(), 76)

    def test_an_end_in_mid_frame_within_the_loop(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            worker.call("at_once", 1)
            worker.send(frame(3, b"null")[:-1])
            worker.sock.shutdown(1)
            self.assertEqual(worker.end(), 74)

    def test_a_host_that_is_gone_when_a_task_answers(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            worker.send_call("same_later", ["x" * 100_000])
            worker.sock.close()
            self.assertIn(worker.process.wait(DEADLINE), (0, 74))

    def test_a_nested_run_of_the_loop_is_not_stopped(self) -> None:
        source = """
            import asyncio, os, time
            def run_nested(awaitable):
                # What nest_asyncio does, for asyncio as it comes.
                loop, task = asyncio.get_running_loop(), asyncio.current_task()
                thread, hooks = loop._thread_id, getattr(loop, "_old_agen_hooks", None)
                asyncio.tasks._leave_task(loop, task)
                asyncio._set_running_loop(None)
                loop._thread_id = None
                try:
                    return loop.run_until_complete(awaitable)
                finally:
                    loop._thread_id, loop._old_agen_hooks = thread, hooks
                    asyncio._set_running_loop(loop)
                    asyncio.tasks._enter_task(loop, task)
            async def exists(name):
                while not os.path.exists(name): await asyncio.sleep(0.001)
                return name
            async def nested(name):
                open("here", "w").close()
                return run_nested(exists(name))
            async def nested_often(count):
                for n in range(count):
                    run_nested(asyncio.sleep(0.0005))
                    await asyncio.sleep(0)
                return count
            def same(value): return value
            def items(count): yield from range(count)
        """
        for hello in ({"in_flight": 8}, {"in_flight": 8, "threads": 2}):
            with self.subTest(hello), Worker(source, **hello) as worker:
                worker.ready()
                nested = worker.send_call("nested", ["go"])
                worker.wait_for("here")
                after = worker.send_call("same", [1])
                stream = worker.send_call("items", [3], credit=9)
                worker.touch("go")
                got = {(kind, call_id): body for kind, call_id, body in (worker.receive() for _ in range(6))}
                self.assertEqual(got[RESULT, nested], "go")
                self.assertEqual(got[RESULT, after], 1)
                self.assertIn((END, stream), got)
                often = {worker.send_call("nested_often", [100])}
                while often:
                    call_id = worker.send_call("same", [2])
                    answered = 0
                    while answered != call_id:
                        kind, answered, body = worker.receive()
                        self.assertEqual((kind, body), (RESULT, 2 if answered == call_id else 100))
                        often.discard(answered)
                self.assertEqual(worker.shutdown(), 0)


if __name__ == "__main__":
    unittest.main()
