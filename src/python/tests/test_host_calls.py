"""Calls of the host by a real worker: from synchronous and asynchronous code, from threads; failing, hanging, late."""

from __future__ import annotations

import random
import unittest
from typing import ClassVar

from tests.support import (
    CANCEL,
    CANCELLED,
    CHUNK,
    END,
    ERROR,
    HOST_CALL,
    HOST_CANCEL,
    RESULT,
    STACK,
    Shared,
    Worker,
    frame,
)

SOURCE = '''
import asyncio, gc, os, pathlib, selectors, sys, threading, time
import hatchery
from hatchery import _calls, _threads

log = []

def logged():
    happened = list(log)
    log.clear()
    return happened

def here(): pathlib.Path("here").touch()
def same(value): return value
async def same_later(value): return value

def is_over_first(value):
    """As when a cancel comes at its very end: it is said to have been raised, and has not come."""
    _calls.current_call().raised = True
    return value

def profiled(value):
    sys.setprofile(lambda *_: None)
    try: return same(value)
    finally: sys.setprofile(None)

def ask(*args, **kwargs): return ["got", hatchery.call_host("price", *args, **kwargs)]
async def ask_later(*args, **kwargs): return ["got", await hatchery.call_host("price", *args, **kwargs)]

def ask_in_own_loop(*args):
    return asyncio.run(ask_later(*args))

class Selector(selectors.DefaultSelector):
    """Tells when a loop waits for the first time: what is interrupted before that does not await the host call yet."""
    told = False
    def select(self, timeout=None):
        if not self.told and (timeout is None or timeout > 0):
            self.told = True
            here()
        return super().select(timeout)

def ask_in_telling_loop():
    usual = asyncio.events.new_event_loop
    asyncio.events.new_event_loop = lambda: asyncio.SelectorEventLoop(Selector())
    try: return ask_in_own_loop()
    finally: asyncio.events.new_event_loop = usual

def ask_in_deaf_loop():
    """What is raised in the thread comes in a callback of the loop's, which only reports it."""
    raise_in = _threads._raise_in
    _threads._raise_in = lambda ident, error: error is hatchery.Cancelled or raise_in(ident, error)
    try: return ask_in_own_loop()
    finally: _threads._raise_in = raise_in

def ask_in_thread(*args):
    """In a thread of its own, for which the main thread waits."""
    got = []
    def run():
        try: got.append(ask(*args))
        except hatchery.HostCallError as error: got.append(error)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(got[0], Exception): raise got[0]
    return got[0]

def ask_in_loop_of_thread(*args):
    got = []
    thread = threading.Thread(target=lambda: got.append(asyncio.run(ask_later(*args))))
    thread.start()
    thread.join()
    return got[0]

def generate(n):
    for i in range(n): yield ask(i)

async def generate_later(n):
    for i in range(n): yield await ask_later(i)

def describe(error): return [type(error).__name__, error.name, error.message, error.cause, str(error)]

def catches():
    try: ask()
    except hatchery.HostCallError as error: return describe(error)

async def catches_later():
    try: await ask_later()
    except hatchery.HostCallError as error: return describe(error)

def chains():
    try: ask()
    except hatchery.HostCallError as error: raise ValueError("no price") from error

def cleans_up():
    try: ask()
    finally:
        try: ask("again")
        except hatchery.HostCallError as error: log.append(error.cause)

async def cleans_up_later():
    try: await ask_later()
    finally:
        try: await ask_later("again")
        except hatchery.HostCallError as error: log.append(error.cause)

async def several(n):
    return await asyncio.gather(*(hatchery.call_host("price", i) for i in range(n)))

async def gives_up():
    try: await asyncio.wait_for(hatchery.call_host("price"), 0.01)
    except asyncio.TimeoutError: return "too slow"

async def leaves_one_behind():
    leaves_one_behind.kept = hatchery.call_host("price")
    return "left"

def drop(): leaves_one_behind.kept = None

def leaves_a_thread_behind():
    def run():
        try: log.append(ask())
        except hatchery.HostCallError as error: log.append(error.cause)
    leaves_a_thread_behind.thread = threading.Thread(target=run, daemon=True)
    leaves_a_thread_behind.thread.start()
    while not os.path.exists("asked"): time.sleep(0.001)
    os.unlink("asked")
    return "left"

def threads_asking():
    from hatchery import _calls
    host = _calls.main.worker.host
    return len(host.pending) if host else 0

def join():
    leaves_a_thread_behind.thread.join()
    return logged()

def unknown(name): return hatchery.call_host(name)

def wrong(how):
    if how == "set": return ask({1})
    if how == "key": return ask(k={(1,): 2})
    if how == "large": return ask("x" * 2_000_000)
    if how == "name": return hatchery.call_host(7)

def outside():
    got = []
    def run():
        while not os.path.exists("no_call_runs"): time.sleep(0.001)
        try: hatchery.call_host("price")
        except RuntimeError as error: got.append(str(error))
        outside.got = got
        here()
    threading.Thread(target=run).start()

def outcome(): return outside.got

def spins_between():
    total = 0
    while True:
        total += hatchery.call_host("price")
        for i in range(1000): pass
'''
FAILED = {"name": "price", "message": "sold out", "cause": "failed"}
WAYS = ("ask", "ask_later", "ask_in_own_loop", "ask_in_thread", "ask_in_loop_of_thread")


class HostCalls(Shared):
    source = SOURCE
    options: ClassVar[dict] = {"max_frame_bytes": 1_500_000, "host_functions": ["price", "sell"]}
    ways = WAYS

    def setUp(self) -> None:
        self.call("logged")

    def tearDown(self) -> None:
        self.assertEqual(self.call("same", 1), 1)
        self.assertEqual(self.call("threads_asking"), 0)
        self.assertTrue(self.worker.quiet())

    def asked(self, call_id: int, args: list | None = None) -> int:
        """Expect a host call on behalf of a call; return its number."""
        kind, number, body = self.worker.receive()
        self.assertEqual((kind, body), (HOST_CALL, ["price", args, None, {"call": call_id}]))
        return number

    def test_results(self) -> None:
        for function in self.ways:
            for value in (7, None, "Grüße", {"a": [1, 2.5]}):
                with self.subTest(function, value=value):
                    call_id = self.send(function)
                    self.worker.send_host_result(self.asked(call_id), value)
                    self.assertEqual(self.worker.answer(call_id), (RESULT, ["got", value]))

    def test_arguments(self) -> None:
        for function in ("ask", "ask_later"):
            call_id = self.worker.send_call(function, [1, "a"], {"currency": "EUR"})
            number, body = self.worker.serve_host_call(3)
            self.assertEqual(body, ["price", [1, "a"], {"currency": "EUR"}, {"call": call_id}])
            self.assertEqual(self.worker.answer(call_id), (RESULT, ["got", 3]))
            self.assertEqual(self.call("threads_asking"), 0)
            self.assertGreater(number, 0)

    def test_failures(self) -> None:
        for function in self.ways:
            if function == "ask_in_loop_of_thread":
                continue
            with self.subTest(function):
                call_id = self.send(function)
                self.worker.send_host_result(self.asked(call_id), error=FAILED)
                self.assertEqual(self.worker.answer(call_id), (ERROR, {"kind": "host_call", **FAILED}))
        described = ["HostCallError", "price", "sold out", "failed", "the host's 'price': sold out"]
        for function in ("catches", "catches_later"):
            call_id = self.send(function)
            self.worker.serve_host_call(error=FAILED)
            self.assertEqual(self.worker.answer(call_id), (RESULT, described))
        call_id = self.send("chains")
        self.worker.serve_host_call(error=FAILED)
        _, error = self.worker.answer(call_id)
        self.assertEqual((error["kind"], error["type"]), ("python", "ValueError"))
        self.assertIn("hatchery.HostCallError: the host's 'price': sold out", error["traceback"])

    def test_unknown_names(self) -> None:
        error = self.call("unknown", "prcie")
        self.assertEqual((error["kind"], error["name"], error["cause"]), ("host_call", "prcie", "no_such_function"))
        self.assertIn("did you mean 'price'", error["message"])
        self.assertEqual(self.call("unknown", "x")["cause"], "no_such_function")

    def test_wrong_arguments(self) -> None:
        for how, says in (("set", "args[0] is a set"), ("key", "kwargs['k'] has a key"), ("large", "over the limit")):
            error = self.call("wrong", how)
            self.assertEqual(error["type"], "ValueError")
            self.assertIn("hatchery.call_host(): ", error["message"])
            self.assertIn(says, error["message"])
        self.assertEqual(self.call("wrong", "name")["type"], "TypeError")

    def test_cancelled_while_it_waits(self) -> None:
        for function in ("ask", "ask_later", "ask_in_telling_loop"):  # of threads the host gives them up, see below
            for signal in (True, False):
                if not signal and function == "ask_in_telling_loop":
                    continue
                with self.subTest(function, signal=signal):
                    call_id = self.send(function)
                    number = self.asked(call_id)
                    if function == "ask_in_telling_loop":
                        self.worker.wait_for("here")
                    self.worker.send(frame(CANCEL, call_id=call_id))
                    if signal:
                        self.worker.remind(0.02)
                    self.assertEqual(self.worker.receive(), (HOST_CANCEL, number, None))
                    self.assertEqual(self.worker.answer(call_id), (ERROR, CANCELLED))
                    self.worker.send_host_result(number, 5)  # late

    def test_a_stream_is_cancelled_while_it_waits(self) -> None:
        for function in ("generate", "generate_later"):
            for signal in (True, False):
                with self.subTest(function, signal=signal):
                    call_id = self.send(function, 3, credit=5)
                    number = self.asked(call_id, [0])
                    self.worker.send(frame(CANCEL, call_id=call_id))
                    if signal:
                        self.worker.remind(0.02)
                    self.assertEqual(self.worker.receive(), (HOST_CANCEL, number, None))
                    self.assertEqual(self.worker.answer(call_id), (ERROR, CANCELLED))
                    self.worker.send_host_result(number, 5)

    def test_cleaning_up_cannot_ask(self) -> None:
        for function in ("cleans_up", "cleans_up_later"):
            call_id = self.send(function)
            number = self.asked(call_id)
            self.worker.cancel(call_id)
            self.assertEqual(self.worker.receive(), (HOST_CANCEL, number, None))
            self.assertEqual(self.worker.answer(call_id), (ERROR, CANCELLED))
            self.assertEqual(self.call("logged"), ["cancelled"])

    def test_streams(self) -> None:
        for function in ("generate", "generate_later"):
            call_id = self.send(function, 3, credit=2)
            for n in range(3):
                self.worker.send_host_result(self.asked(call_id, [n]), n * n)
                if n == 1:
                    self.worker.credit(call_id, 5)
                self.assertEqual(self.worker.answer(call_id), (CHUNK, ["got", n * n]))
            self.assertEqual(self.worker.answer(call_id), (END, None))

    def test_several_at_once(self) -> None:
        call_id = self.send("several", 5)
        numbers = [self.asked(call_id, [n]) for n in range(5)]
        for n in (3, 0, 4, 1, 2):
            self.worker.send_host_result(numbers[n], n * 10)
        self.assertEqual(self.worker.answer(call_id), (RESULT, [0, 10, 20, 30, 40]))

    def test_asynchronous_code_gives_up(self) -> None:
        call_id = self.send("gives_up")
        number = self.asked(call_id)
        self.assertEqual(self.worker.receive(), (HOST_CANCEL, number, None))
        self.assertEqual(self.worker.answer(call_id), (RESULT, "too slow"))
        self.worker.send_host_result(number, error={**FAILED, "cause": "cancelled"})

    def test_left_behind(self) -> None:
        call_id = self.send("leaves_one_behind")
        number = self.asked(call_id)
        self.assertEqual(self.worker.answer(call_id), (RESULT, "left"))
        self.worker.send_host_result(number, error={**FAILED, "cause": "cancelled"})
        self.assertEqual(self.call("drop"), None)

    def test_numbers_of_no_host_call(self) -> None:
        for number in (0, 10**9, 2**64 - 1):
            self.worker.send_host_result(number, 1)
            self.worker.send_host_result(number, error=FAILED)

    def test_results_that_cannot_be_read(self) -> None:
        for function in ("catches", "catches_later"):
            call_id = self.send(function)
            number = self.asked(call_id)
            self.worker.send(frame(11, b"[", call_id=number))
            kind, described = self.worker.answer(call_id)
            self.assertEqual((kind, described[3]), (RESULT, "failed"))
            self.assertIn("cannot be read", described[2])

    def test_results_race_with_cancels(self) -> None:
        for round_ in range(150):
            function = random.choice(("ask", "ask_later"))
            call_id = self.send(function)
            number = self.asked(call_id)
            both = [frame(11, b"1", call_id=number), frame(CANCEL, call_id=call_id)]
            random.shuffle(both)
            self.worker.send(both[0])
            if round_ % 2:
                self.worker.poke()
            self.worker.send(both[1])
            self.worker.poke()
            kind, answered, body = self.worker.receive()
            if kind == HOST_CANCEL:
                self.assertEqual(answered, number)
                kind, answered, body = self.worker.receive()
            self.assertEqual(answered, call_id)
            self.assertIn((kind, body), [(ERROR, CANCELLED), (RESULT, ["got", 1])])


class OfOne(HostCalls):
    def test_numbers(self) -> None:
        with Worker(SOURCE) as worker:  # without a list of names any may be asked for
            worker.ready()
            for n in range(1, 5):
                call_id = worker.send_call("ask" if n % 2 else "ask_later")
                self.assertEqual(worker.serve_host_call(n)[0], n)
                self.assertEqual(worker.answer(call_id), (RESULT, ["got", n]))

    def test_a_thread_that_outlives_its_call(self) -> None:
        call_id = self.send("leaves_a_thread_behind")
        number = self.asked(call_id)
        self.worker.touch("asked")
        self.assertEqual(self.worker.answer(call_id), (RESULT, "left"))
        self.worker.send_host_result(number, error={**FAILED, "cause": "cancelled"})
        self.assertEqual(self.call("join"), ["cancelled"])

    def test_threads_of_a_cancelled_call(self) -> None:
        call_id = self.send("ask_in_thread")
        number = self.asked(call_id)
        self.assertEqual(self.worker.cancelled(call_id), CANCELLED)
        self.worker.send_host_result(number, error={**FAILED, "cause": "cancelled"})

    def test_outside_of_calls(self) -> None:
        self.call("outside")
        self.worker.touch("no_call_runs")
        self.worker.wait_for("here")
        self.assertIn("no call runs here", self.call("outcome")[0])

    def test_where_it_waits(self) -> None:
        call_id = self.send("ask")
        number = self.asked(call_id)
        self.assertEqual(self.worker.stack(), "")
        self.worker.send(frame(STACK, call_id=call_id))
        kind, text = self.worker.answer(call_id)
        self.assertEqual(kind, STACK)
        self.assertRegex(text, r'\A  File "[^"]*usermodule.py", line \d+, in ask\n.*\n\Z')
        self.worker.send_host_result(number, 1)
        self.assertEqual(self.worker.answer(call_id), (RESULT, ["got", 1]))

    def test_the_host_goes_away(self) -> None:
        for function in self.ways:
            with self.subTest(function), Worker(SOURCE) as worker:
                worker.ready()
                worker.send_call(function)
                self.assertEqual(worker.receive()[0], HOST_CALL)
                worker.sock.close()
                if "thread" in function or "own" in function:
                    continue  # user code waits where nobody reads; the parent-death socket ends the process
                self.assertIn(worker.end(), (0, 74))

    def test_the_signal_between_two(self) -> None:
        for _ in range(30):
            call_id = self.send("spins_between")
            for _ in range(random.randrange(1, 5)):
                self.worker.send_host_result(self.asked(call_id), 1)
            self.worker.cancel(call_id)
            while True:
                self.worker.remind(0.05)
                kind, answered, body = self.worker.receive()
                if kind == HOST_CALL:
                    self.worker.send_host_result(answered, 1)
                elif kind != HOST_CANCEL:
                    break
            self.assertEqual((kind, answered, body), (ERROR, call_id, CANCELLED))


class OfSeveral(OfOne):
    options: ClassVar[dict] = {**HostCalls.options, "in_flight": 8}

    def test_others_go_on_meanwhile(self) -> None:
        for loop in (False, True):
            with self.subTest(loop=loop), Worker(SOURCE, in_flight=8) as worker:
                worker.ready()
                if loop:
                    worker.call("same_later", 1)
                waiting = worker.send_call("ask")
                _, number, _ = worker.receive()
                self.assertEqual(worker.begun(), (waiting, 0))
                sync = [worker.send_call("same", [n]) for n in range(2)]
                later = worker.send_call("ask_later", [1])
                kind, second, _ = worker.receive()
                self.assertEqual(kind, HOST_CALL)
                worker.send_host_result(second, 2)
                self.assertEqual(worker.answer(later), (RESULT, ["got", 2]))
                queued = worker.send_call("same", [2])
                self.assertEqual(worker.cancelled(queued), CANCELLED)
                self.assertTrue(worker.quiet(0.01))  # no synchronous one runs below another
                worker.send_host_result(number, 1)
                self.assertEqual(worker.answer(waiting), (RESULT, ["got", 1]))
                self.assertEqual([worker.answer(call_id)[1] for call_id in sync], [0, 1])
                self.assertEqual(worker.shutdown(), 0)

    def test_many_at_once(self) -> None:
        calls = {}
        numbers = {}
        for n in range(8):
            calls[self.send("ask_later", n)] = n
        for _ in range(8):
            _, number, body = self.worker.receive()
            numbers[number] = body[1][0]
        for number, n in random.sample(list(numbers.items()), 8):
            self.worker.send_host_result(number, n)
        for _ in range(8):
            _, call_id, body = self.worker.receive()
            self.assertEqual(body, ["got", calls[call_id]])


class InThreads(HostCalls):
    options: ClassVar[dict] = {**HostCalls.options, "in_flight": 8, "threads": 3}
    ways = ("ask", "ask_later", "ask_in_own_loop")

    def test_together(self) -> None:
        calls = [self.send("ask", n) for n in range(3)]
        asked = {}
        for _ in calls:
            _, number, body = self.worker.receive()
            asked[number] = body[1][0]
        for number, n in reversed(list(asked.items())):
            self.worker.send_host_result(number, n)
            self.assertEqual(self.worker.answer(calls[n]), (RESULT, ["got", n]))

    def test_a_loop_that_waits_for_the_host_ends_with_its_call(self) -> None:
        call_id = self.send("ask_in_deaf_loop")
        number = self.asked(call_id)
        self.worker.cancel(call_id)
        self.assertEqual(self.worker.receive(), (HOST_CANCEL, number, None))
        self.assertEqual(self.worker.answer(call_id), (ERROR, CANCELLED))

    def test_a_profiler_can_follow_a_cancel(self) -> None:
        for function in ("ask", "spins_between"):
            for _ in range(3):  # in each of the threads
                call_id = self.send(function)
                number = self.asked(call_id)
                if function == "spins_between":
                    self.worker.send_host_result(number, 1)
                    number = self.asked(call_id)
                self.worker.cancel(call_id)
                self.assertEqual(self.worker.receive(), (HOST_CANCEL, number, None))
                self.assertEqual(self.worker.answer(call_id), (ERROR, CANCELLED))
            self.assertEqual(self.call("profiled", 1), 1)
        self.assertEqual(self.call("is_over_first", 2), 2)
        self.assertEqual(self.call("profiled", 1), 1)

    def test_stacks(self) -> None:
        call_id = self.send("ask")
        number = self.asked(call_id)
        self.worker.send(frame(STACK, call_id=call_id))
        kind, text = self.worker.answer(call_id)
        self.assertEqual(kind, STACK)
        self.assertRegex(text, r'\A  File "[^"]*usermodule.py", line \d+, in ask\n.*\n\Z')
        self.worker.send_host_result(number, 1)
        self.assertEqual(self.worker.answer(call_id), (RESULT, ["got", 1]))


if __name__ == "__main__":
    unittest.main()
