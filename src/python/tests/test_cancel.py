"""Cancelling what a real worker runs: the signal that follows the frame raises in user code, once, and nowhere else."""

from __future__ import annotations

import os
import pathlib
import random
import threading
import unittest
from typing import ClassVar

from tests.support import (
    CALL,
    CANCEL,
    CANCEL_SIGNAL,
    CANCELLED,
    DEADLINE,
    ERROR,
    PROGRESS,
    RESULT,
    Shared,
    Worker,
    frame,
)

SOURCE = '''
import asyncio, ctypes, os, pathlib, selectors, subprocess, sys, threading, time, weakref
import hatchery

log = []

def logged():
    happened = list(log)
    log.clear()
    return happened

def here(name="here"): pathlib.Path(name).touch()

def pid(): return os.getpid()
def same(value): return value

def rest():
    """Sleep so that no signal is seen late."""
    while True: time.sleep(0.001)

def sleep():
    here()
    time.sleep(3600)

def spin():
    here()
    while True: pass

def endless():
    while True: pass

def endless_items():
    while True: pass
    yield 1

def lock():
    held = threading.Lock()
    held.acquire()
    here()
    held.acquire()

def event():
    here()
    threading.Event().wait()

def child():
    with subprocess.Popen(["sleep", "3600"]) as child:
        try:
            here()
            child.wait()
        finally:
            child.kill()

def join():
    thread = threading.Thread(target=time.sleep, args=[3600], daemon=True)
    thread.start()
    here()
    thread.join()

def pipe():
    read, write = os.pipe()
    here()
    os.read(read, 1)

def own_loop():
    class Selector(selectors.DefaultSelector):
        def select(self, timeout=None):
            if timeout is None or timeout > 1: here()  # what interrupts a callback of a loop is lost
            return super().select(timeout)
    async def main():
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("own loop cleaned up")
    usual = asyncio.events.new_event_loop
    asyncio.events.new_event_loop = lambda: asyncio.SelectorEventLoop(Selector())
    try:
        asyncio.run(main())
    finally:
        asyncio.events.new_event_loop = usual

def in_an_import():
    import endless_module

def in_imports():
    here()
    while True:
        for name in list(sys.modules):
            if name.startswith("wsgiref"):
                del sys.modules[name]
        import wsgiref.headers

def import_again():
    import wsgiref.headers
    return threading.active_count()

def in_finally():
    try:
        raise ValueError
    finally:
        try:
            here()
            time.sleep(3600)
        finally:
            log.append("inner finally")
    log.append("never")

def in_except():
    try:
        raise ValueError("first")
    except ValueError:
        here()
        time.sleep(3600)

def in_with():
    with threading.Lock():
        here()
        while True: pass

def converts():
    try:
        here()
        time.sleep(3600)
    except hatchery.Cancelled:
        raise KeyError("converted") from None

def cleans_up():
    try:
        here()
        time.sleep(3600)
    finally:
        for i in range(20):
            time.sleep(0.01)  # signals come meanwhile; nothing more is raised
        hatchery.progress("cleaning")
        log.append(hatchery.cancelled())

def swallows():
    try:
        here()
        time.sleep(3600)
    except BaseException as error:
        log.append([type(error).__module__, type(error).__name__, str(error), isinstance(error, Exception)])
    log.append(hatchery.cancelled())
    time.sleep(0.3)
    return "went on"

def raises_itself(): raise hatchery.Cancelled

async def raises_itself_later(): raise hatchery.Cancelled

class Deleted:
    def __init__(self, name): self.name = name
    def __del__(self):
        here(self.name)
        rest()

def in_del():
    Deleted("here")
    log.append("after del")
    here("after")
    rest()

def in_dels():
    for name in ("here", "second", "third"): Deleted(name)

def in_ctypes():
    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def compare(a, b):
        here()
        rest()
        return 0
    compare(None, None)  # not by qsort, which may call it more than once
    log.append("after ctypes")
    here("after")
    rest()

def in_weakref():
    class Thing: pass
    thing = Thing()
    def gone(_):
        here()
        rest()
    ref = weakref.ref(thing, gone)
    del thing
    here("after")
    rest()

def other_unraisable():
    class Odd:
        def __del__(self): raise ValueError("odd")
    Odd()
    return 1

def progresses():
    i = 0
    while True:
        hatchery.progress(["x" * 1000, i])
        i += 1

def threads_progress():
    gate, stop = threading.Lock(), threading.Event()
    def run(n):
        with gate: pass
        i = 0
        while not stop.is_set():
            hatchery.progress([n, i, "y" * (i % 5000)])
            i += 1
    threads = [threading.Thread(target=run, args=[n], daemon=True) for n in range(3)]
    gate.acquire()
    for thread in threads: thread.start()
    try:
        gate.release()  # no progress before all have started: a thread whose start was cut short cannot be joined
        i = 0
        while True:
            hatchery.progress(["main", i])
            i += 1
    finally:
        stop.set()
        for thread in threads: thread.join()

def sees_it_in_a_thread():
    gate, done = threading.Lock(), threading.Lock()  # an Event that is interrupted could stay locked
    def watch():
        with gate: pass
        here()
        while not hatchery.cancelled(): time.sleep(0.002)
        done.release()
    gate.acquire()
    done.acquire()
    threading.Thread(target=watch).start()
    try:
        gate.release()
        time.sleep(3600)
    except BaseException:
        pass
    return done.acquire(timeout=20)

def forks():
    """Leave a child that gets the signal too."""
    child = os.fork()
    if child == 0:
        here()
        try:
            while not os.path.exists("child_may_go"): time.sleep(0.002)
            os._exit(7)
        except BaseException:
            os._exit(8)
    return child

def collect(child):
    pathlib.Path("child_may_go").touch()
    return os.waitpid(child, 0)[1] >> 8

def deep():
    here()
    def down(): return down()
    while True:
        try: down()
        except RecursionError: pass

def generate():
    here()
    while True: pass
    yield 1

def generate_swallowing():
    while True:
        try:
            here()
            time.sleep(3600)
        except BaseException as error:
            log.append(type(error).__name__)
        yield 1

def quick(n):
    total = 0
    for i in range(n): total += i
    return total

async def quick_later(n):
    for i in range(n): await asyncio.sleep(0)
    return n
'''
ENDLESS = "import pathlib, time\npathlib.Path('here').touch()\ntime.sleep(3600)\n"


class Cancel(Shared):
    source = SOURCE
    files: ClassVar[dict] = {"endless_module.py": ENDLESS}

    def setUp(self) -> None:
        self.call("logged")

    def tearDown(self) -> None:
        self.assertEqual(self.call("pid"), self.ready["pid"])
        self.assertTrue(self.worker.quiet())
        # What nobody has waited for would tell the next test too early that its function is there.
        self.assertFalse((pathlib.Path(self.worker.directory.name) / "here").exists())

    def cancel(self, function: str, **options) -> object:
        """Start a function, wait until it is where it wants to be, and cancel it."""
        call_id = self.worker.send_call(function, **options)
        self.worker.wait_for("here")
        return self.worker.cancelled(call_id)

    def test_wherever_python_code_is(self) -> None:
        for function in (
            "sleep",
            "spin",
            "lock",
            "event",
            "child",
            "join",
            "pipe",
            "in_an_import",
            "in_except",
            "in_with",
        ):
            with self.subTest(function):
                self.assertEqual(self.cancel(function), CANCELLED)

    def test_in_a_loop_of_its_own(self) -> None:
        self.assertEqual(self.cancel("own_loop"), CANCELLED)
        self.assertEqual(self.call("logged"), ["own loop cleaned up"])

    def test_in_a_finally(self) -> None:
        self.assertEqual(self.cancel("in_finally"), CANCELLED)
        self.assertEqual(self.call("logged"), ["inner finally"])

    def test_imports_stay_possible(self) -> None:
        for _ in range(10):
            self.assertEqual(self.cancel("in_imports"), CANCELLED)
            self.assertGreaterEqual(self.call("import_again"), 1)

    def test_deep_recursion(self) -> None:
        answer = self.cancel("deep")
        self.assertIn(answer.get("type", answer["kind"]), ("cancelled", "RecursionError"))

    def test_what_the_function_ends_with_is_the_answer(self) -> None:
        error = self.cancel("converts")
        self.assertEqual((error["kind"], error["type"]), ("python", "KeyError"))
        for function in ("raises_itself", "raises_itself_later"):
            self.assertEqual(self.call(function), CANCELLED)

    def test_cleaning_up_is_not_disturbed(self) -> None:
        call_id = self.worker.send_call("cleans_up", progress=True)
        self.worker.wait_for("here")
        self.worker.cancel(call_id)
        self.worker.remind(0.005)
        self.assertEqual(self.worker.answer(call_id), (PROGRESS, "cleaning"))
        self.assertEqual(self.worker.answer(call_id), (ERROR, CANCELLED))
        self.assertEqual(self.call("logged"), [True])

    def test_swallowed_is_not_raised_again(self) -> None:
        self.assertEqual(self.cancel("swallows"), "went on")
        self.assertEqual(self.call("logged"), [["hatchery", "Cancelled", "the call was cancelled", False], True])

    def cancel_again(self, function: str, *places: str) -> object:
        """Cancel it where it is swallowed, and remind it at each of the places where it is next."""
        call_id = self.worker.send_call(function)
        self.worker.wait_for("here")
        self.worker.cancel(call_id)
        for place in places:
            self.worker.wait_for(place)
            self.worker.poke()
        return self.worker.answer(call_id)[1]

    def test_swallowed_where_python_cannot_raise_it_is(self) -> None:
        self.assertEqual(self.cancel_again("in_del", "after"), CANCELLED)
        self.assertEqual(self.call("logged"), ["after del"])
        # The last one was swallowed as the function ended.
        self.assertEqual(self.cancel_again("in_dels", "second", "third"), None)
        self.assertEqual(self.cancel_again("in_ctypes", "after"), CANCELLED)
        self.assertEqual(self.call("logged"), ["after ctypes"])
        self.assertEqual(self.cancel_again("in_weakref", "after"), CANCELLED)

    def test_other_unraisable_exceptions_are_told(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            self.assertEqual(worker.call("other_unraisable"), 1)
            worker.shutdown()
            self.assertIn(b"ValueError: odd", worker.printed["stderr"])

    def test_frames_are_not_cut(self) -> None:
        for function in ("progresses", "threads_progress"):
            for _ in range(5):
                call_id = self.worker.send_call(function, progress=True)
                seen: dict[object, int] = {}
                for _ in range(random.randrange(1, 300)):
                    kind, body = self.worker.answer(call_id)
                    self.assertEqual(kind, PROGRESS)
                    if function == "threads_progress":
                        self.assertEqual(body[1], seen.get(body[0], 0))  # each thread's own are in order
                        seen[body[0]] = body[1] + 1
                self.worker.cancel(call_id)
                kind = PROGRESS
                while kind == PROGRESS:
                    kind, body = self.worker.answer(call_id)
                self.assertEqual((kind, body), (ERROR, CANCELLED))

    def test_threads_can_ask(self) -> None:
        self.assertEqual(self.cancel("sees_it_in_a_thread"), True)

    def test_forked_children_keep_out_of_it(self) -> None:
        child = self.call("forks")
        self.worker.wait_for("here")
        call_id = self.worker.send_call("sleep")
        self.worker.wait_for("here")
        self.worker.send(frame(CANCEL, call_id=call_id))
        os.kill(child, CANCEL_SIGNAL)  # which would read the frame if it could
        self.assertTrue(self.worker.quiet(0.05))
        self.worker.remind()
        self.assertEqual(self.worker.answer(call_id), (ERROR, CANCELLED))
        self.assertEqual(self.call("collect", child), 7)

    def test_late_cancels_and_signals_hit_nothing(self) -> None:
        for _ in range(20):
            call_id = self.worker.send_call("same", [1])
            self.assertEqual(self.worker.answer(call_id), (RESULT, 1))
            self.worker.cancel(call_id)
            self.assertEqual(self.call("quick", 2000), 1999000)
        self.worker.cancel(10**15)  # and a call that never was
        self.assertEqual(self.call("quick", 2000), 1999000)

    def test_cancelled_before_it_began(self) -> None:
        for function in ("endless", "endless_items", "quick_later"):
            with self.subTest(function):
                call_id = self.worker.send_call("event")
                self.worker.wait_for("here")
                queued = self.worker.send_call(function, [10**9] if function == "quick_later" else [], credit=1)
                self.worker.send(frame(CANCEL, call_id=queued))
                self.worker.cancel(call_id)
                answers = set()
                for _ in range(2):  # the handler answers the queued one first, if it takes several calls
                    self.worker.remind()
                    kind, answered, body = self.worker.receive()
                    self.assertEqual((kind, body), (ERROR, CANCELLED))
                    answers.add(answered)
                self.assertEqual(answers, {call_id, queued})

    def test_in_the_step_of_a_stream(self) -> None:
        self.assertEqual(self.cancel("generate", credit=3), CANCELLED)
        self.assertEqual(self.cancel("generate_swallowing", credit=3), CANCELLED)
        self.assertEqual(self.call("logged"), ["Cancelled", "GeneratorExit"][:1])

    def test_frames_that_came_before_the_cancel_are_served(self) -> None:
        call_id = self.worker.send_call("spin")
        self.worker.wait_for("here")
        large = "x" * 3_000_000  # more than a socket holds while nobody reads it
        queued = []

        def send() -> None:
            queued.extend(self.worker.send_call("same", [text]) for text in ("a", large, "b"))
            self.worker.cancel(call_id)
            self.worker.send(frame(CALL, b'["same",[2],null]', call_id=10**6))

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        self.worker.remind(0.002)
        self.assertEqual(self.worker.answer(call_id), (ERROR, CANCELLED))
        sender.join(DEADLINE)
        self.assertEqual([self.worker.answer(one)[1] for one in queued], ["a", large, "b"])
        self.assertEqual(self.worker.receive(), (RESULT, 10**6, 2))

    def test_a_frame_in_pieces(self) -> None:
        """The signal comes while only a part of a frame is there."""
        call_id = self.worker.send_call("spin")
        self.worker.wait_for("here")
        data = frame(CALL, b'["same",[2],null]', call_id=10**6 + 1) + frame(CANCEL, call_id=call_id)
        for byte in data[:-1]:
            self.worker.send(bytes([byte]))
            self.worker.poke()
        self.assertTrue(self.worker.quiet(0.02))
        self.worker.send(data[-1:])
        self.worker.poke()
        self.assertEqual(self.worker.answer(call_id), (ERROR, CANCELLED))
        self.assertEqual(self.worker.receive(), (RESULT, 10**6 + 1, 2))

    def test_a_host_that_breaks_the_protocol_during_a_call(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            call_id = worker.send_call("spin")
            worker.wait_for("here")
            worker.send(frame(CANCEL, call_id=call_id) + b"\0\0\0\0")
            worker.poke()
            self.assertEqual(worker.answer(call_id), (ERROR, CANCELLED))
            self.assertEqual(worker.receive()[2]["kind"], "protocol")
            self.assertEqual(worker.end(), 76)

    def test_a_host_that_goes_away_during_a_call(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            call_id = worker.send_call("spin")
            worker.wait_for("here")
            worker.send(frame(CANCEL, call_id=call_id))
            worker.sock.close()
            worker.poke()
            self.assertEqual(worker.end(), 74)


if __name__ == "__main__":
    unittest.main()
