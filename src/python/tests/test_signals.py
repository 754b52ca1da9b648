"""Signals that a worker inherits, leaves to the host, or whose handlers are the user's."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import sys
import time
import unittest
from typing import ClassVar

from tests.support import CALL, DEADLINE, ERROR, HOST_CALL, HOST_CANCEL, PROGRESS, RESULT, Shared, Worker, frame

SOURCE = """
import _thread, asyncio, contextlib, os, pathlib, signal, subprocess, sys, threading, time
import hatchery

class Alarm(Exception): pass

def same(value): return value
def touch(name): pathlib.Path(name).touch()

def raising(*_): raise Alarm("ring")

def arm(number, error="Alarm"):
    def handler(*_):
        touch("rang")
        raise {"Alarm": Alarm, "SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[error]("ring")
    signal.signal(number, handler)

def interrupt_later():
    def later():
        while not os.path.exists("go"): time.sleep(0.001)
        _thread.interrupt_main()
        touch("rang")
    threading.Thread(target=later).start()

@contextlib.contextmanager
def alarm(seconds):
    former = signal.signal(signal.SIGALRM, raising)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)

def times_out(how):
    try:
        with alarm(0.05):
            if how == "sleep": time.sleep(100)
            if how == "host": hatchery.call_host("wait")
            if how == "loop":
                while True: pass
            if how == "progress":
                while True: hatchery.progress("x" * 1000)
            if how == "asyncio": asyncio.run(asyncio.sleep(100))
    except Alarm:
        return "in time"

async def times_out_later():
    try:
        with alarm(0.05):
            time.sleep(100)
    except Alarm:
        return "in time"

def gives_items(count):
    for _ in range(count):
        try:
            with alarm(0.001): time.sleep(100)
        except Alarm:
            yield "in time"

class Interrupts:
    def __iter__(self): return iter(())
    def __str__(self):
        os.kill(os.getpid(), signal.SIGINT)
        return "odd"

def raises_odd(): raise ValueError(Interrupts())

def every(seconds):
    signal.signal(signal.SIGALRM, raising)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)

def dispositions():
    changed = {}
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if handler not in (signal.SIG_DFL, None):
            changed[int(number)] = handler if isinstance(handler, int) else handler.__name__
    return [changed, [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]]

def check_false():
    try: subprocess.check_call(["false"])
    except subprocess.CalledProcessError as error: return error.returncode

def status(how):
    if how == "subprocess": text = subprocess.check_output(["cat", "/proc/self/status"]).decode()
    else:
        reading, writing = os.pipe()
        def fork():
            if os.fork() == 0:
                os.write(writing, open("/proc/self/status", "rb").read())
                os._exit(0)
            os.wait()
        if how == "fork": fork()
        else:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        text = os.read(reading, 65536).decode()
        os.close(reading)
        os.close(writing)
    found = dict(line.split(":", 1) for line in text.splitlines())
    return [int(found[name].strip(), 16) for name in ("SigBlk", "SigIgn", "SigCgt")]

def own_handler():
    got = []
    former = signal.signal(signal.SIGTERM, lambda *_: got.append(1))
    os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, former)
    return [got, former.__name__]

def restored():
    before = signal.getsignal(signal.SIGINT)
    asyncio.run(asyncio.sleep(0))
    return before is signal.default_int_handler and signal.getsignal(signal.SIGINT) is before

def waits(name):
    touch("waits")
    while not os.path.exists(name): time.sleep(0.001)
    return "finished"
"""


def in_set(mask: int, number: int) -> bool:
    return bool(mask >> (number - 1) & 1)


class Inherited(unittest.TestCase):
    def test_ignored_and_blocked_signals_are_not_inherited(self) -> None:
        numbers = [signal.SIGCHLD, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGRTMIN + 3]
        former = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM, signal.SIGALRM])
        try:
            worker = Worker(SOURCE)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for number, handler in former.items():
                signal.signal(number, handler)
        with worker:
            worker.ready()
            changed, blocked = worker.call("dispositions")
            self.assertEqual(blocked, [])
            cancel = str(int(worker.hello["cancel_signal"]))
            self.assertEqual(
                changed,
                {
                    str(int(signal.SIGINT)): "default_int_handler",
                    str(int(signal.SIGPIPE)): int(signal.SIG_IGN),
                    str(int(signal.SIGXFSZ)): int(signal.SIG_IGN),
                    str(int(signal.SIGTERM)): "left_to_host",
                    str(int(signal.SIGHUP)): "left_to_host",
                    cancel: "on_signal",
                },
            )
            self.assertEqual(worker.call("check_false"), 1)
            # The C library keeps signals 32 and 33 for itself, and its posix_spawn ignores them.
            kept = 0b11 << 31
            blocked, ignored = (mask & ~kept for mask in worker.call("status", "subprocess")[:2])
            self.assertEqual((blocked, ignored), (0, 0))
            self.assertEqual(worker.shutdown(), 0)


class LeftToTheHost(unittest.TestCase):
    def test_a_call_outlives_sigterm_and_sighup(self) -> None:
        for hello in ({}, {"in_flight": 8}, {"in_flight": 8, "threads": 2}):
            with self.subTest(hello), Worker(SOURCE, **hello) as worker:
                worker.ready()
                for number in (signal.SIGTERM, signal.SIGHUP):
                    worker.process.send_signal(number)
                    call_id = worker.send_call("waits", [f"go-{number}"])
                    worker.wait_for("waits")
                    worker.process.send_signal(number)
                    worker.touch(f"go-{number}")
                    self.assertEqual(worker.answer(call_id), (RESULT, "finished"))
                self.assertEqual(worker.shutdown(), 0)
                self.assertEqual(worker.printed["stderr"], b"")

    def test_children_have_the_default(self) -> None:
        for hello in ({}, {"in_flight": 8, "threads": 2}):
            with Worker(SOURCE, **hello) as worker:
                worker.ready()
                for how in ("subprocess", "fork", "thread"):
                    with self.subTest(how, **hello):
                        _, ignored, caught = worker.call("status", how)
                        for number in (signal.SIGTERM, signal.SIGHUP):
                            self.assertFalse(in_set(ignored, number) or in_set(caught, number))

    def test_user_handlers_work(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            self.assertEqual(worker.call("own_handler"), [[1], "left_to_host"])
            self.assertTrue(worker.call("restored"))
            worker.process.send_signal(signal.SIGTERM)
            self.assertEqual(worker.call("same", 1), 1)


class Raising(Shared):
    """In a worker that takes one call at a time."""

    source = SOURCE

    @classmethod
    def tearDownClass(cls) -> None:
        # The tests have checked the reports of the handlers; the end of the worker adds nothing to them.
        cls.printed = {"stdout": b"", "stderr": cls.worker.printed_so_far()["stderr"]}
        super().tearDownClass()

    def test_handler_raising_while_idle_is_printed(self) -> None:
        for error in ("Alarm", "SystemExit", "KeyboardInterrupt"):
            for number in (signal.SIGALRM, signal.SIGUSR1, signal.SIGTERM):
                with self.subTest(error, number=number):
                    self.call("arm", number, error)
                    self.worker.process.send_signal(number)
                    self.worker.wait_for("rang")
                    self.assertEqual(self.call("same", 1), 1)
        end = time.monotonic() + DEADLINE
        # The worker prints at most ten reports a second.
        while b"KeyboardInterrupt\n" not in self.worker.printed_so_far()["stderr"]:
            self.assertLess(time.monotonic(), end)
            self.worker.process.send_signal(signal.SIGINT)
            self.assertEqual(self.call("same", 1), 1)
        self.assertIn(b"ring", self.worker.printed_so_far()["stderr"])

    def test_interrupt_main_while_idle_loses_no_call(self) -> None:
        for _ in range(10):
            self.call("interrupt_later")
            self.worker.touch("go")
            self.worker.wait_for("rang")
            self.assertEqual(self.call("same", 7), 7)

    def test_handler_raising_in_user_code_is_raised_there(self) -> None:
        for how in ("sleep", "loop", "asyncio"):
            self.assertEqual(self.call("times_out", how), "in time")
        self.assertEqual(self.call("times_out_later"), "in time")
        call_id = self.worker.send_call("gives_items", [20], credit=100)
        self.assertEqual(self.worker.items(call_id)[0], ["in time"] * 20)
        self.assertEqual(self.call("raises_odd")["type"], "ValueError")

    def test_handler_raising_in_a_host_call_is_raised_by_it(self) -> None:
        for _ in range(5):
            call_id = self.worker.send_call("times_out", ["host"])
            kind, number, _ = self.worker.receive()
            self.assertEqual(kind, HOST_CALL)
            self.assertEqual(self.worker.receive()[:2], (HOST_CANCEL, number))
            self.assertEqual(self.worker.answer(call_id), (RESULT, "in time"))
            call_id = self.worker.send_call("times_out", ["progress"], progress=True)
            kind = PROGRESS
            while kind == PROGRESS:
                kind, body = self.worker.answer(call_id)
            self.assertEqual((kind, body), (RESULT, "in time"))

    def test_signal_storm_during_calls_tears_no_frame(self) -> None:
        self.call("every", 0.0007)
        served = 0
        for n in range(400):
            value = "x" * (100_000 if n % 4 == 0 else 10) + str(n)
            call_id = self.worker.send_call("same", [value])
            kind, body = self.worker.answer(call_id)
            if kind == RESULT:
                self.assertEqual(body, value)
                served += 1
            else:
                self.assertEqual((kind, body["type"]), (ERROR, "usermodule.Alarm"))
        self.assertGreater(served, 200)
        kind = ERROR
        while kind == ERROR:
            kind, _ = self.worker.answer(self.worker.send_call("every", [0]))

    def test_signal_storm_while_frames_arrive_loses_none(self) -> None:
        self.call("every", 0.0007)
        calls = range(self.worker._next_id + 1, self.worker._next_id + 301)
        self.worker._next_id += 300
        body = json.dumps(["same", ["y" * 200], None]).encode()
        self.worker.send(b"".join(frame(CALL, body, call_id=call_id) for call_id in calls))
        answered = [self.worker.receive()[1] for _ in calls]
        self.assertEqual(sorted(answered), list(calls))
        kind = ERROR
        while kind == ERROR:
            kind, _ = self.worker.answer(self.worker.send_call("every", [0]))


class RaisingInFlight(Raising):
    """In one that takes several, and has an event loop."""

    options: ClassVar[dict] = {"in_flight": 8}


class RaisingWithThreads(unittest.TestCase):
    def test_on_the_main_thread_nothing_is_lost(self) -> None:
        with Worker(SOURCE, in_flight=8, threads=2) as worker:
            worker.ready()
            for _ in range(20):
                worker.process.send_signal(signal.SIGINT)
                self.assertEqual(worker.call("same", 1), 1)
            self.assertEqual(worker.shutdown(), 0)
            self.assertIn(b"KeyboardInterrupt", worker.printed["stderr"])


def asks_in_terminal(writing: int) -> None:
    """Start a worker in a session with a terminal, and write what becomes of code that wants one."""
    source = """
        import getpass, os, warnings
        def opens():
            try: os.close(os.open("/dev/tty", os.O_RDWR))
            except OSError as error: return error.strerror
        def asks():
            warnings.simplefilter("ignore")
            try: return getpass.getpass()
            except EOFError: return "nobody answers"
    """
    with Worker(source, own_session=False) as worker:
        worker.ready()
        answers = [worker.call("asks"), worker.call("opens")]
    ours = os.open("/dev/tty", os.O_RDWR)  # the host still has it, and is in front
    answers.append(os.tcgetpgrp(ours) == os.getpgrp())
    os.write(writing, ", ".join(map(str, answers)).encode())


@unittest.skipUnless(os.path.exists("/dev/ptmx"), "needs pseudo-terminals")
class Terminal(unittest.TestCase):
    def test_a_worker_has_no_controlling_terminal(self) -> None:
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        script = f"import sys; sys.path[:] = {sys.path}; from tests import test_signals as these; "
        script += f"these.asks_in_terminal({writing})"
        pid, terminal = pty.fork()
        if pid == 0:  # leads a session that has the terminal, as a shell does
            os.execv(sys.executable, [sys.executable, "-c", script])
        os.close(writing)
        try:
            with open(reading) as answers:
                self.assertEqual(answers.read(), f"nobody answers, {os.strerror(errno.ENXIO)}, True")
        finally:
            os.close(terminal)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    unittest.main()
