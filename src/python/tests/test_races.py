"""Two threads where one used to be enough, each race made to happen: one thread waits in the middle for the other."""

from __future__ import annotations

import _socket
import os
import socket
import threading
import time
import unittest
from types import SimpleNamespace
from unittest import mock

from hatchery import _memfds
from tests.support import (
    CANCEL,
    CANCELLED,
    DEADLINE,
    END,
    ERROR,
    HOST_CALL,
    HOST_CANCEL,
    RESULT,
    SESSION_END,
    Worker,
    frame,
)

# `Door` stands before a lock and tells when a second thread comes to it, which is as far as that one gets.
DOOR = """
import threading
from hatchery import _calls

other_came = threading.Event()
worker = _calls.main.worker

class Door:
    def __init__(self, lock):
        self.lock, self.came = lock, 0
    def __enter__(self):
        self.came += 1
        if self.came == 2: other_came.set()
        self.lock.acquire()
    def __exit__(self, *_):
        self.lock.release()
"""


class FirstUse(unittest.TestCase):
    def test_the_first_host_calls_come_from_two_threads(self) -> None:
        source = """
from hatchery import _host, call_host
worker._making = Door(getattr(worker, "_making", threading.RLock()))
hosts = []

class Host(_host.Host):
    def __init__(self, worker):
        hosts.append(self)
        if len(hosts) == 2: other_came.set()
        assert other_came.wait(20)
        super().__init__(worker)
_host.Host = Host

def ask(n): return [n, call_host("same", n)]
def count(): return len(hosts)
"""
        with Worker(DOOR + source, in_flight=2, threads=2) as worker:
            worker.ready()
            calls = {worker.send_call("ask", [n]): n for n in range(2)}
            asked = [worker.receive() for _ in calls]
            self.assertEqual({(kind, number) for kind, number, _ in asked}, {(HOST_CALL, 1), (HOST_CALL, 2)})
            for _, number, body in asked:
                worker.send_host_result(number, body[1][0])
            answers = [worker.receive()[1:] for _ in calls]
            self.assertEqual(dict(answers), {call_id: [n, n] for call_id, n in calls.items()})
            self.assertEqual(worker.call("count"), 1)

    def test_first_host_call_of_a_thread_during_a_main_write(self) -> None:
        source = """
            import asyncio, contextvars, pathlib, time
            import hatchery
            def ask():
                while not pathlib.Path("written").exists(): time.sleep(0.0005)
                pathlib.Path("asks").touch()
                return hatchery.call_host("same", 1)
            async def ask_in_thread():
                return await asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, ask)
            async def large(size): return "x" * size
        """
        with Worker(source, in_flight=2) as worker:
            worker.ready()
            asks, large = worker.send_call("ask_in_thread"), worker.send_call("large", [8 << 20])
            self.assertFalse(worker.quiet(DEADLINE))  # the answer has begun to come, and does not fit into the socket
            worker.touch("written")
            worker.wait_for("asks")
            self.assertEqual(worker.answer(large), (RESULT, "x" * (8 << 20)))
            worker.serve_host_call(5)
            self.assertEqual(worker.answer(asks), (RESULT, 5))

    def test_the_first_memfds_come_and_go_at_once(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = theirs.detach()
        both = threading.Barrier(2)
        create = _socket.socket
        got = []

        def slow(*args: object) -> object:
            made = create(*args)
            both.wait(DEADLINE)
            return made

        threads = [threading.Thread(target=lambda: got.append(_memfds._connected(fd))) for _ in range(2)]
        with mock.patch.object(_memfds, "_socket", SimpleNamespace(**{**vars(_socket), "socket": slow})):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(DEADLINE)
        self.assertIs(got[0], got[1])
        ours.send(b"whole")
        self.assertEqual(os.read(fd, 16), b"whole")
        _memfds._sockets.pop(fd).close()
        ours.close()


class Threads(unittest.TestCase):
    def test_two_submit_what_needs_the_last_thread(self) -> None:
        source = """
__all__ = ["race"]
from hatchery import _threads
worker.pool._lock = Door(worker.pool._lock)
runner, made = _threads.Runner, []

class Runner(runner):
    def __init__(self, *args):
        made.append(self)
        if in_the_race:
            if len(made) == 3: other_came.set()
            assert other_came.wait(20)
        super().__init__(*args)
_threads.Runner = Runner
in_the_race = False

def job(*args): done.release()
done = threading.Semaphore(0)

def race():
    global in_the_race
    in_the_race, worker.pool._lock.came = True, 0
    submit = lambda: worker.pool._submit(job, None)
    threads = [threading.Thread(target=submit) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    for _ in threads: done.acquire()
    return len(made)
"""
        with Worker(DOOR + source, in_flight=2, threads=2) as worker:
            worker.ready()
            self.assertEqual(worker.call("race"), 2)

    def test_credit_comes_while_a_stream_begins(self) -> None:
        source = """
from hatchery import _calls, _serving, _threads
release = threading.Event()  # what lets the function return
stopped = threading.Event()  # the thread has used up its credit

class Call(_calls.Call):
    @property
    def items(self):
        value = self.__dict__.get("items")
        # The main thread looks whether it streams; before it goes on, the thread does.
        if value is None and sys._getframe(1).f_code.co_name == "handle_control":
            release.set()
            assert stopped.wait(20)
        return value
    @items.setter
    def items(self, value): self.__dict__["items"] = value
    @property
    def stepping(self): return self.__dict__.get("stepping", False)
    @stepping.setter
    def stepping(self, value):
        self.__dict__["stepping"] = value
        if not value: stopped.set()
_calls.Call = Call
credit = _threads.Pool.credit

def credit_and_release(*args):
    credit(*args)
    release.set()
_threads.Pool.credit = credit_and_release

__all__ = ["stream"]
def stream():
    assert release.wait(20)
    return (threading.current_thread() is threading.main_thread() for _ in range(2))
"""
        with Worker("import sys\n" + DOOR + source, in_flight=2, threads=2) as worker:
            worker.ready()
            call_id = worker.send_call("stream", credit=1)
            worker.credit(call_id, 3)
            self.assertEqual(worker.items(call_id), ([False, False], END, None))

    def test_thread_coroutine_runs_while_main_waits_for_the_host(self) -> None:
        source = """
            import hatchery
            def begin(): hatchery.session()
            async def later(value): return value
            def delegates(value): return later(value)
            @hatchery.on_session_end
            def end(name, state): hatchery.call_host("f")
        """
        with Worker(source, in_flight=2, threads=2) as worker:
            worker.ready()
            worker.answer(worker.send_call("begin", session="s"))
            worker.send(frame(SESSION_END, b'{"session":"s"}', call_id=100))
            kind, number, _ = worker.receive()
            self.assertEqual(kind, HOST_CALL)
            self.assertEqual(worker.call("delegates", 1), 1)  # the host may need that for its answer
            worker.send_host_result(number)
            self.assertEqual(worker.answer(100), (RESULT, None))

    def test_the_end_waits_for_answers_that_are_about_to_be_sent(self) -> None:
        source = """
import pathlib, threading, time
import hatchery
from hatchery import _serving, _threads
answering, goes_on, answered = threading.Event(), threading.Event(), threading.Event()
_threads.PATIENCE_SECONDS = 20  # the thread may be slow
answer, sleep = _serving.Worker.answer, _threads.sleep

def late(self, call, result):
    answering.set()
    assert goes_on.wait(20)
    answer(self, call, result)
    answered.set()
_serving.Worker.answer = late

def waits(seconds):
    if answering.is_set(): goes_on.set()
    sleep(seconds)
_threads.sleep = waits

__all__ = ["hold"]
def hold():
    try:
        pathlib.Path("here").touch()
        while True: time.sleep(0.001)
    except hatchery.Cancelled:
        return "kept"

@hatchery.on_stop
def stop():
    print(answered.is_set(), flush=True)
    goes_on.set()
"""
        with Worker(source, in_flight=2, threads=2) as worker:
            worker.ready()
            call_id = worker.send_call("hold")
            worker.wait_for("here")
            self.assertEqual(worker.shutdown(), 0)
            self.assertEqual(worker.printed["stdout"], b"True\n")
            self.assertEqual(worker.answer(call_id), (RESULT, "kept"))


# `between(do)` has `do()` run where the caller of its caller, or who called that, has got what that returned, and done
# nothing with it yet.
BETWEEN = """
import asyncio, pathlib, sys, threading, time
from types import SimpleNamespace
from hatchery import _calls, _threads

def between(do, depth=2):
    ours = sys._getframe(depth)
    def tracer(frame, event, _):
        if frame is ours and event == "opcode":
            ours.f_trace = None
            sys.settrace(None)
            do(ours)
        return tracer
    ours.f_trace, ours.f_trace_opcodes = tracer, True
    sys.settrace(tracer)

async def later(): await asyncio.sleep(3600)

def same(value): return value

def delegates():
    pathlib.Path("here").touch()
    while not pathlib.Path("there").exists(): time.sleep(0.001)
    between(do)
    return later()
"""


class Ends(unittest.TestCase):
    def cancel_at_the_end(self, source: str, **hello: object) -> None:
        with Worker(BETWEEN + source, **hello) as worker:
            worker.ready()
            call_id = worker.send_call("delegates")
            worker.wait_for("here")
            worker.send(frame(CANCEL, call_id=call_id))
            worker.touch("there")
            self.assertEqual(worker.answer(call_id), (ERROR, CANCELLED))
            self.assertEqual(worker.call("same", 1), 1)
            self.assertEqual(worker.shutdown(), 0)
            self.assertEqual(worker.printed, {"stdout": b"", "stderr": b""})

    def test_signal_after_a_function_returned_a_coroutine(self) -> None:
        source = "def do(ours): _calls.main.on_signal(0, ours)"
        for in_flight in (1, 8):
            with self.subTest(in_flight=in_flight):
                self.cancel_at_the_end(source, in_flight=in_flight)

    def test_thread_cancel_after_a_coroutine_was_returned(self) -> None:
        source = """
cancels, looked = threading.Event(), threading.Event()
_threads._BOUNDARY_SECONDS = 20  # the thread may be slow to leave that place
cancel = _threads.Pool.cancel

def cancel_in_time(*args):
    assert cancels.wait(20)
    cancel(*args)
    looked.set()
_threads.Pool.cancel = cancel_in_time

def sleep(seconds):  # which is how it waits for the thread to leave that place
    looked.set()
    time.sleep(seconds)
_threads.sleep = sleep

def do(ours):
    ident, frames = threading.get_ident(), sys._current_frames
    _threads.sys = SimpleNamespace(_current_frames=lambda: {**frames(), ident: ours})
    cancels.set()
    assert looked.wait(20)
"""
        self.cancel_at_the_end(source, in_flight=2, threads=1)

    def test_signal_in_or_after_our_callback_of_a_user_loop(self) -> None:
        source = """
import hatchery

class Loop(asyncio.SelectorEventLoop):
    def call_later(self, *args):  # the callback's last deed
        there = pathlib.Path("there")
        if sys._getframe(2).f_code is asyncio.Handle._run.__code__ and there.exists():
            there.unlink()
            if in_callback: do(sys._getframe())
            else: between(do, 3)
            pathlib.Path("came").touch()
        return super().call_later(*args)
asyncio.events.new_event_loop = Loop

def do(ours): _calls.main.on_signal(0, ours)
async def asks(): await hatchery.call_host("f")
def runs_a_loop(): asyncio.run(asks())
"""
        for where in ("in_callback = True", "in_callback = False"):
            with self.subTest(where), Worker(BETWEEN + source + where) as worker:
                worker.ready()
                call_id = worker.send_call("runs_a_loop")
                kind, number, _ = worker.receive()
                self.assertEqual(kind, HOST_CALL)
                worker.send(frame(CANCEL, call_id=call_id))
                worker.touch("there")
                worker.wait_for("came")
                worker.remind()
                self.assertEqual(worker.receive(), (HOST_CANCEL, number, None))
                self.assertEqual(worker.answer(call_id), (ERROR, CANCELLED))
                self.assertEqual(worker.shutdown(), 0)
                self.assertEqual(worker.printed, {"stdout": b"", "stderr": b""})

    def test_function_without_a_frame_is_interrupted(self) -> None:
        source = """
            import functools, time
            __all__ = ["nap"]
            nap = functools.partial(time.sleep, 3600)
        """
        with Worker(source, in_flight=2) as worker:
            worker.ready()
            call_id = worker.send_call("nap")
            end = time.monotonic() + DEADLINE
            while worker.begun()[0] < call_id:
                self.assertLess(time.monotonic(), end)
            self.assertEqual(worker.cancelled(call_id), CANCELLED)


class Marks(unittest.TestCase):
    def test_a_later_call_is_marked_in_between(self) -> None:
        source = """
import sys, threading
from hatchery import _calls
marked = threading.Event()

class Words:
    def __init__(self, words): self.words = words
    def __getitem__(self, index):
        value = self.words[index]
        if index == 0 and value == 0 and sys._getframe(1).f_locals["call_id"] == 1:
            assert marked.wait(20)
        return value
    def __setitem__(self, index, value):
        self.words[index] = value
        if index == 0: marked.set()
_calls.main.start_marker = Words(_calls.main.start_marker)

def same(value): return value
"""
        with Worker(source, in_flight=2, threads=2) as worker:
            worker.ready()
            calls = [worker.send_call("same", [n]) for n in range(2)]
            self.assertEqual({worker.receive()[1] for _ in calls}, set(calls))
            self.assertEqual(worker.begun(), (2, 0))


if __name__ == "__main__":
    unittest.main()
