"""What a deadline needs: the stack of what hangs, on the pipe or as a frame, and `hatchery.deadline()`."""

from __future__ import annotations

import os
import select
import signal
import time
import unittest

from tests.support import CANCELLED, CHUNK, DEADLINE, STACK, STACK_SIGNAL, Shared, Worker, frame

SOURCE = """
import asyncio, ctypes, pathlib, select, subprocess, sys, threading, time
import hatchery

def here(): pathlib.Path("here").touch()
def same(value): return value

gate = threading.Event()
def let_thread_end(): gate.set()

def sleep():
    here()
    time.sleep(3600)  # hangs here

def spin():
    here()
    while True: pass  # hangs here

def holds_the_gil():
    here()
    ctypes.PyDLL(None).sleep(3600)  # hangs here

def c_loop():
    here()
    sum(range(10**18))  # hangs here

def power():
    here()
    3 ** 10**9  # hangs here

def lock():
    held = threading.Lock()
    held.acquire()
    here()
    held.acquire()  # hangs here

def own_loop():
    async def main():
        here()
        await asyncio.sleep(3600)
    asyncio.run(main())  # hangs here

def generate():
    here()
    time.sleep(3600)  # hangs here
    yield

def generator():
    for i in range(10):
        yield from deeper(i)  # hangs here

def deeper(i):
    yield i  # hangs here

def deep(n):
    if n: return deep(n - 1)
    here()
    time.sleep(3600)

class Odd:
    def __init__(self): self.left = 3
    def __next__(self):
        self.left -= 1
        return self.left

def iterator(): return Odd()

async def blocks():
    here()
    time.sleep(3600)  # hangs here

async def waits(how):
    here()
    if how == "event": await asyncio.Event().wait()  # hangs here event
    elif how == "deep": await inner()  # hangs here deep
    elif how == "future": await asyncio.get_running_loop().create_future()  # hangs here future
    elif how == "gather": await asyncio.gather(done(), inner(), inner())  # hangs here gather
    elif how == "wait_for": await asyncio.wait_for(inner(), 3600)  # hangs here wait_for
    elif how == "shield": await asyncio.shield(inner())  # hangs here shield
    elif how == "wait": await asyncio.wait([asyncio.ensure_future(inner())])  # hangs here wait
    elif how == "task": await asyncio.ensure_future(inner())  # hangs here task
    elif how == "thread": await asyncio.to_thread(gate.wait)  # hangs here thread
    elif how == "generator":
        async for _ in async_generator(): pass  # hangs here generator
    elif how == "group":
        async with asyncio.TaskGroup() as group:  # hangs here group
            group.create_task(inner())
    elif how == "awaitable": await Awaitable()  # hangs here awaitable
    elif how == "with":
        async with Manager(): pass  # hangs here with

class Awaitable:
    def __await__(self): return inner().__await__()

class Manager:
    async def __aenter__(self): await inner()
    async def __aexit__(self, *_): pass

async def done(): pass
async def inner(): await asyncio.sleep(3600)  # hangs here inner
async def async_generator():
    await inner()
    yield 1

async def stream():
    for i in range(10): yield i  # hangs here

def deadline():
    left = hatchery.deadline()
    return left if left is None else left - time.monotonic()

async def deadline_later(): return deadline()
"""
LINES = SOURCE.splitlines()


class Stacks(Shared):
    source = SOURCE

    def hang(self, function: str, *args, worker: Worker | None = None, **options) -> int:
        worker = worker or self.worker
        call_id = worker.send_call(function, list(args), **options)
        worker.wait_for("here")
        return call_id

    def hung(self, worker: Worker, within: str = "") -> str:
        """Return the stack as soon as the function has come from saying that it is there to where it hangs."""
        end = time.monotonic() + DEADLINE
        while True:
            stack = worker.stack()
            shown = self.shown(stack)
            hangs = shown and shown[0].endswith("# hangs here") and within in stack.partition("\n")[0]
            if hangs or time.monotonic() > end:
                return stack
            time.sleep(0.002)

    def shown(self, text: str) -> list[str]:
        """Return the lines of user code that a stack shows, as they stand in the source."""
        numbers = [line.split("line ")[1] for line in text.splitlines() if 'usermodule.py", line ' in line]
        return [LINES[int(number.split()[0].rstrip(",")) - 1].strip() for number in numbers]

    def test_synchronous_code(self) -> None:
        for function, options in {
            "sleep": {},
            "spin": {},
            "lock": {},
            "own_loop": {},
            "generate": {"credit": 1},
        }.items():
            with self.subTest(function):
                call_id = self.hang(function, **options)
                # What interrupts a callback of a loop is lost, so the loop has to wait.
                stack = self.hung(self.worker, within="selectors.py" if function == "own_loop" else "")
                if function != "own_loop":
                    self.assertRegex(stack, rf'\A  File "[^"]*usermodule.py", line \d+ in {function}\n\Z')
                self.assertEqual(self.worker.cancelled(call_id), CANCELLED)
                self.assertEqual(self.worker.call("same", 1), 1)

    def test_c_code_that_holds_the_gil(self) -> None:
        for function in ("holds_the_gil", "c_loop", "power"):
            with self.subTest(function), Worker(SOURCE) as worker:
                worker.ready()
                self.hang(function, worker=worker)
                self.assertTrue(self.shown(self.hung(worker))[0].endswith("# hangs here"))

    def test_a_loop_that_is_blocked(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            self.hang("blocks", worker=worker)
            self.assertTrue(self.shown(self.hung(worker))[0].endswith("# hangs here"))

    def test_nothing_of_the_users_runs(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            self.assertEqual(worker.stack(), "")
            worker.call("deadline_later")
            end = time.monotonic() + DEADLINE
            while worker.stack() and time.monotonic() < end:
                time.sleep(0.002)
            self.assertEqual(worker.stack(), "")  # nor in an idle event loop

    def test_a_full_pipe_does_not_stop_the_worker(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            call_id = self.hang("sleep", worker=worker)
            for _ in range(2000):
                worker.process.send_signal(STACK_SIGNAL)
            self.assertEqual(worker.cancelled(call_id), CANCELLED)
            self.assertEqual(worker.call("same", 1), 1)
            self.assertEqual(worker.shutdown(), 0)

    def test_deep_stacks_are_cut(self) -> None:
        call_id = self.hang("deep", 500)
        self.worker.process.send_signal(STACK_SIGNAL)
        text = ""
        while not text.endswith("  ...\n") and text.count("  File ") < 100:  # some Pythons just stop there
            self.assertTrue(select.select([self.worker.stacks], [], [], DEADLINE)[0], text)
            text += os.read(self.worker.stacks, 65536).decode()
        self.assertGreater(text.count(" in deep\n"), 90)  # the first few may be those that tell that it is there
        self.assertEqual(self.worker.cancelled(call_id), CANCELLED)

    def test_a_stopped_worker_says_nothing(self) -> None:
        call_id = self.hang("sleep")
        self.worker.process.send_signal(signal.SIGSTOP)
        self.worker.process.send_signal(STACK_SIGNAL)
        self.worker.cancel(call_id)
        self.assertTrue(self.worker.quiet(0.05))
        self.worker.process.send_signal(signal.SIGCONT)
        self.worker.remind()
        self.assertEqual(self.worker.answer(call_id)[1], CANCELLED)
        self.assertEqual(self.worker.call("same", 1), 1)
        self.worker.stack()

    def test_children_do_not_inherit_the_pipe(self) -> None:
        source = "import subprocess\ndef child():\n    return subprocess.Popen(['sleep', '60'], close_fds=False).pid\n"
        with Worker(source) as worker:
            worker.ready()
            worker.call("child")
            worker.process.kill()
            worker.process.wait(DEADLINE)
            self.assertTrue(select.select([worker.stacks], [], [], DEADLINE)[0])
            self.assertEqual(os.read(worker.stacks, 100), b"")

    def told(self, call_id: int) -> str:
        self.worker.send(frame(STACK, call_id=call_id))
        kind, text = self.worker.answer(call_id)
        self.assertEqual(kind, STACK)
        self.assertNotIn("<hatchery>", text)
        return text

    def test_awaiting_code(self) -> None:
        through = {"event": 0, "future": 0, "thread": 0}
        ways = "event deep future gather wait_for shield wait task thread generator group awaitable with"
        for how in ways.split():
            if how == "group" and not hasattr(__import__("asyncio"), "TaskGroup"):
                continue
            with self.subTest(how):
                call_id = self.hang("waits", how)
                shown = self.shown(self.told(call_id))
                self.assertIn("# hangs here " + how, shown[0])
                if how not in through:
                    self.assertIn("# hangs here inner", shown[-1])
                self.assertEqual(self.worker.cancelled(call_id), CANCELLED)
        self.worker.call("let_thread_end")

    def test_a_line_of_the_text(self) -> None:
        call_id = self.hang("waits", "deep")
        lines = self.told(call_id).splitlines()
        self.assertRegex(lines[0], r'\A  File "[^"]*usermodule.py", line \d+, in waits\Z')
        self.assertEqual(lines[1], '    elif how == "deep": await inner()  # hangs here deep')
        self.assertEqual(lines[3], "    async def inner(): await asyncio.sleep(3600)  # hangs here inner")
        self.assertEqual(self.worker.cancelled(call_id), CANCELLED)

    def test_streams_that_wait_for_credit(self) -> None:
        for function in ("generator", "stream"):
            call_id = self.worker.send_call(function, credit=1)
            self.assertEqual(self.worker.answer(call_id), (CHUNK, 0))
            shown = self.shown(self.told(call_id))
            self.assertTrue(all(line.endswith("# hangs here") for line in shown), shown)
            self.assertEqual(len(shown), 2 if function == "generator" else 1)
            self.assertEqual(self.worker.cancelled(call_id), CANCELLED)
        call_id = self.worker.send_call("iterator", credit=1)
        self.assertEqual(self.worker.answer(call_id), (CHUNK, 2))
        self.worker.send(frame(STACK, call_id=call_id))  # nothing is known of it
        self.assertEqual(self.worker.cancelled(call_id), CANCELLED)


class Deadlines(unittest.TestCase):
    def test_python_knows(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            for function in ("deadline", "deadline_later", "deadline"):
                for options in ({}, {"session": "s"}):
                    answer = worker.answer(worker.send_call(function, **options))[1]
                    self.assertIsNone(answer)
                    began = time.monotonic()
                    left = worker.answer(worker.send_call(function, timeout_ms=60_000, **options))[1]
                    self.assertGreater(left, 60 - (time.monotonic() - began) - 0.001)
                    self.assertLessEqual(left, 60)


if __name__ == "__main__":
    unittest.main()
