"""What user code may ask `hatchery` about its call, and tell its caller."""

from __future__ import annotations

import subprocess
import sys
import unittest
from typing import ClassVar

from tests.support import ERROR, HERE, IN_FLIGHT, PROGRESS, RESULT, Shared, Worker

SOURCE = '''
import asyncio, contextvars, threading, time
import hatchery

def same(value): return value

def steps(values):
    for value in values: hatchery.progress(value)
    return "done"

async def steps_later(values):
    for value in values:
        await asyncio.sleep(0)
        hatchery.progress(value)
    return "done"

def bad(how):
    value = {"set": [1, {2}], "large": "x" * 2_000_000}[how]
    try:
        hatchery.progress(value)
    except ValueError as error:
        return str(error)

def in_threads(n):
    def run(i):
        for j in range(20): hatchery.progress([i, j, "x" * (1000 * j)])
    threads = [threading.Thread(target=run, args=[i]) for i in range(n)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return "done"

def outlives():
    """Leave a thread behind that goes on telling its progress."""
    stop.clear()
    def run():
        while not stop.is_set(): hatchery.progress("late")
    outlives.thread = threading.Thread(target=run, daemon=True)
    outlives.thread.start()
    return "done"
stop = threading.Event()
def end():
    stop.set()
    outlives.thread.join()

def asked_in_a_thread():
    seen = []
    def run(): seen.append([hatchery.session(), hatchery.deadline() is not None, hatchery.cancelled()])
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return seen

def in_own_loop():
    async def main():
        hatchery.progress(1)
        return [hatchery.session(), await asyncio.to_thread(hatchery.deadline) is not None]
    return asyncio.run(main())

def between():
    """What is known while no call runs."""
    return facts
facts = [hatchery.cancelled(), hatchery.deadline(), hatchery.progress(object())]

async def background(n):
    """Go on after the answer."""
    async def run():
        await asyncio.sleep(0.02)
        hatchery.progress("late")
        background.seen = [hatchery.cancelled(), hatchery.session()]
        background.done.set()
    background.done = asyncio.Event()
    background.task = asyncio.ensure_future(run())
    hatchery.progress("early")
async def background_seen():
    await background.done.wait()
    return background.seen

def many(n):
    for _ in range(n): hatchery.progress(None)
'''


class Api(Shared):
    source = SOURCE
    options: ClassVar[dict] = {"max_frame_bytes": 1_000_000}

    def test_progress(self) -> None:
        values = [1, None, {"done": 0.5}, "é", [[]]]
        for function in ("steps", "steps_later"):
            call_id = self.worker.send_call(function, [values], progress=True)
            for value in values:
                self.assertEqual(self.worker.answer(call_id), (PROGRESS, value))
            self.assertEqual(self.worker.answer(call_id), (RESULT, "done"))
            self.assertEqual(self.call(function, values), "done")  # nobody listens
            call_id = self.worker.send_call(function, [values], progress=False)
            self.assertEqual(self.worker.answer(call_id), (RESULT, "done"))

    def test_progress_that_cannot_be_sent(self) -> None:
        for how, says in {"set": "value[1] is a set;", "large": "is over the limit of 1000000"}.items():
            self.assertIsNone(self.call("bad", how))
            call_id = self.worker.send_call("bad", [how], progress=True)
            kind, text = self.worker.answer(call_id)
            self.assertEqual(kind, RESULT)
            self.assertIn(says, text)

    def test_progress_of_threads(self) -> None:
        call_id = self.worker.send_call("in_threads", [4], progress=True)
        seen = dict.fromkeys(range(4), 0)
        while True:
            kind, body = self.worker.answer(call_id)
            if kind == RESULT:
                break
            self.assertEqual(body[1:], [seen[body[0]], "x" * (1000 * seen[body[0]])])
            seen[body[0]] += 1
        self.assertEqual(seen, dict.fromkeys(range(4), 20))

    def test_nothing_is_sent_after_the_answer(self) -> None:
        for _ in range(20):
            call_id = self.worker.send_call("outlives", progress=True)
            kind = PROGRESS
            while kind == PROGRESS:
                kind, body = self.worker.answer(call_id)
            self.assertEqual((kind, body), (RESULT, "done"))
            self.assertEqual(self.call("same", 1), 1)  # which checks the id of the next frame
            self.assertIsNone(self.call("end"))
        call_id = self.worker.send_call("background", [1], progress=True, session="s")
        self.assertEqual([self.worker.answer(call_id) for _ in "12"], [(PROGRESS, "early"), (RESULT, None)])
        self.assertEqual(self.call("background_seen"), [False, {}])

    def test_threads_ask_for_their_call(self) -> None:
        call_id = self.worker.send_call("asked_in_a_thread", session="s", timeout_ms=50_000)
        self.assertEqual(self.worker.answer(call_id), (RESULT, [[{}, True, False]]))

    def test_loops_of_synchronous_functions_ask_for_theirs(self) -> None:
        self.assertEqual(self.call("steps_later", []), "done")  # now there is a loop of the worker's too
        call_id = self.worker.send_call("in_own_loop", session="s", timeout_ms=50_000, progress=True)
        self.assertEqual([self.worker.answer(call_id) for _ in "12"], [(PROGRESS, 1), (RESULT, [{}, True])])

    def test_while_no_call_runs(self) -> None:
        self.assertEqual(self.call("between"), [False, None, None])

    def test_progress_that_nobody_reads_is_cheap(self) -> None:
        self.assertIsNone(self.call("many", 100_000))

    def test_the_answer_to_a_call_with_options_that_fails(self) -> None:
        for function in ("steps", "steps_later"):
            kind, error = self.worker.answer(self.worker.send_call(function, progress=True))
            self.assertEqual((kind, error["kind"]), (ERROR, "arguments"))


class Imports(unittest.TestCase):
    def test_a_worker_imports_little(self) -> None:
        source = "import sys\ndef modules(): return list(sys.modules)\n"
        with Worker(source) as worker:
            worker.ready()
            imported = set(worker.call("modules"))
        bare = subprocess.run(
            [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
        )
        more = {name for name in imported - set(bare.stdout.split()) if name.partition(".")[0] != "hatchery"}
        allowed = {"usermodule", "marshal", "types", "time", "struct", "select", "faulthandler", "atexit"}
        if IN_FLIGHT:
            allowed.add("mmap")
        builtin = {name for name in more if name.startswith("_")}
        self.assertLessEqual(more - builtin, allowed)
        self.assertNotIn("_asyncio", builtin)

    def test_everything_public_is_documented(self) -> None:
        import hatchery

        for name in hatchery.__all__:
            if name != "__version__":
                self.assertTrue(getattr(hatchery, name).__doc__, name)
        self.assertTrue((HERE.parent / "hatchery" / "__init__.py").read_text().startswith('"""'))


if __name__ == "__main__":
    unittest.main()
