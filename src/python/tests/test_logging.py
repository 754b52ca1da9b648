"""Records of `logging` of a real worker, as frames; and what identifies a request."""

from __future__ import annotations

import json
import unittest
from typing import ClassVar

from tests.support import CANCELLED, ERROR, LOG, RESULT, Shared, Worker

SOURCE = '''
import asyncio, logging, os, pathlib, signal, sys, threading, time
import hatchery

logger = logging.getLogger("app.words")

def same(value): return value

def log(level, message, *args, logger="app.words"):
    logging.getLogger(logger).log(level, message, *args)

async def log_later(message):
    await asyncio.sleep(0)
    logger.warning(message)

def context(): return [hatchery.request_id(), hatchery.traceparent()]
async def context_later(): return context()

def context_in_thread():
    got = []
    thread = threading.Thread(target=lambda: got.append(context()))
    thread.start()
    thread.join()
    return got[0]

def exception():
    try: {}["pear"]
    except KeyError: logger.exception("no %s", "price")

def stack(): logger.warning("where", stack_info=True)

class Odd:
    def __str__(self): raise ValueError("odd")
    __repr__ = __str__

class Surrogate:
    def __str__(self): return "a\\ud800b"

class Logs:
    def __str__(self):
        logger.warning("inner")
        return "outer"

class Deleted:
    def __del__(self): logger.warning("deleted")

def odd(how):
    if how == "arguments": logger.warning("%s %s", 1)
    if how == "format": logger.warning("%d", "x")
    if how == "str": logger.warning("%s", Odd())
    if how == "message": logger.warning(Odd())
    if how == "surrogate": logger.warning(Surrogate())
    if how == "nested": logger.warning("%s", Logs())
    if how == "deleted": Deleted()
    if how == "level": logger.log(2**40, "high")
    if how == "percent": logger.warning("100%")

def large(size): logger.warning("<%s>", "x" * size)
def control(size): logger.warning("\\0" * size)

def in_threads(n):
    def run(k):
        for i in range(n): logger.warning("%d %d %s", k, i, "y" * (i % 300))
    threads = [threading.Thread(target=run, args=[k]) for k in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return n

def in_signal_handlers(n):
    """A handler of the user's that logs, while large frames are written."""
    ends = []
    def handler(*_):
        logger.warning("alarm")
        if not ends: signal.setitimer(signal.ITIMER_REAL, 0.0005)  # not earlier: it would interrupt itself
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    for i in range(n): hatchery.progress("z" * 300_000)
    ends.append(True)
    signal.setitimer(signal.ITIMER_REAL, 0)

def forever():
    i = 0
    while True:
        logger.warning("%d", i)
        i += 1

def forks():
    child = os.fork()
    if child == 0:
        logger.warning("of a child")
        os._exit(0)
    return os.waitpid(child, 0)[1]

def silence(name, level): logging.getLogger(name).setLevel(level)
def handlers(): return [type(one).__name__ for one in logging.getLogger().handlers]
def level(): return logging.getLogger().level
'''


class Logging(Shared):
    source = SOURCE
    options: ClassVar[dict] = {"log_level": 20}

    def tearDown(self) -> None:
        self.assertEqual(self.call("same", 1), 1)
        self.assertTrue(self.worker.quiet())

    def logged(self, function: str, *args: object, **options) -> list[tuple[int, dict]]:
        """Call a function; return level and body of what it logged."""
        call_id = self.worker.send_call(function, list(args), **options)
        records = []
        while True:
            kind, number, answered, body = self.worker.receive_whole()
            self.assertEqual(answered, call_id)
            if kind != LOG:
                self.assertEqual(kind, RESULT, body)
                return records
            records.append((number, body))

    def messages(self, function: str, *args: object) -> list[str]:
        return [body["message"] for _, body in self.logged(function, *args)]

    def test_levels(self) -> None:
        for level in (20, 25, 30, 40, 50, 99):
            expected = [(level, {"logger": "app.words", "message": "two words"})]
            self.assertEqual(self.logged("log", level, "%s words", "two"), expected)
        for level in (0, 1, 10, 19):
            self.assertEqual(self.logged("log", level, "quiet"), [])
        self.assertEqual(
            self.logged(
                "log",
                30,
                "x",
            )[0][1]["logger"],
            "app.words",
        )

    def test_loggers_of_the_users_are_filtered_as_the_user_wants(self) -> None:
        self.call("silence", "app.words", 40)
        self.assertEqual(self.logged("log", 30, "quiet"), [])
        self.assertEqual(self.messages("log", 40, "loud"), ["loud"])
        self.call("silence", "app.words", 0)

    def test_request_ids(self) -> None:
        for function, args in (("log", [30, "x"]), ("log_later", ["x"])):
            expected = {"logger": "app.words", "message": "x", "request_id": "r-7"}
            self.assertEqual(self.logged(function, *args, request_id="r-7"), [(30, expected)])
        for function in ("context", "context_later", "context_in_thread"):
            call_id = self.worker.send_call(function, request_id="r-8", traceparent="00-ab-cd-01", depth=3)
            self.assertEqual(self.worker.answer(call_id), (RESULT, ["r-8", "00-ab-cd-01"]))
            self.assertEqual(self.call(function), [None, None])

    def test_options_that_are_none(self) -> None:
        for options in ({"request_id": 7}, {"traceparent": None}, {"depth": -1}, {"depth": True}, {"depth": "1"}):
            with self.subTest(options):
                kind, error = self.worker.answer(self.worker.send_call("context", **options))
                self.assertEqual((kind, error["kind"]), (ERROR, "decode"))

    def test_exceptions(self) -> None:
        (message,) = self.messages("exception")
        self.assertTrue(message.startswith("no price\nTraceback (most recent call last):\n"))
        self.assertTrue(message.endswith("KeyError: 'pear'"))
        self.assertIn("in stack", self.messages("stack")[0])

    def test_odd_records(self) -> None:
        self.assertIn("cannot be formatted: TypeError", self.messages("odd", "arguments")[0])
        self.assertIn("%d (it cannot be formatted", self.messages("odd", "format")[0])
        self.assertIn("cannot be formatted: ValueError", self.messages("odd", "str")[0])
        self.assertIn("its __str__ raised ValueError", self.messages("odd", "message")[0])
        self.assertEqual(self.messages("odd", "surrogate"), ["a?b"])
        self.assertEqual(self.messages("odd", "nested"), ["inner", "outer"])
        self.assertEqual(self.messages("odd", "deleted"), ["deleted"])
        self.assertEqual(self.messages("odd", "percent"), ["100%"])
        self.assertEqual(self.logged("odd", "level")[0][0], 2**32 - 1)

    def test_huge_messages(self) -> None:
        for size in (16_000, 10_000_000):
            (message,) = self.messages("large", size)
            self.assertLess(len(message), 16_500)
            self.assertTrue(message.startswith("<xxx"))
            self.assertTrue(message.endswith("xxx>"))
        with Worker(SOURCE, log_level=20, max_frame_bytes=4096) as worker:
            worker.ready()
            for function in ("large", "control"):
                call_id = worker.send_call(function, [16_000])
                self.assertEqual(worker.receive()[:2], (LOG, call_id))
                self.assertEqual(worker.answer(call_id), (RESULT, None))

    def test_threads(self) -> None:
        seen = dict.fromkeys(range(4), 0)
        for message in self.messages("in_threads", 300):
            thread, number, text = message.split(" ")
            self.assertEqual((int(number), len(text)), (seen[int(thread)], seen[int(thread)] % 300))
            seen[int(thread)] += 1
        self.assertEqual(set(seen.values()), {300})

    def test_signal_handlers_cut_no_frame(self) -> None:
        call_id = self.worker.send_call("in_signal_handlers", [100], progress=True)
        kinds = []
        while not kinds or kinds[-1] != RESULT:
            kind, _, body = self.worker.receive()
            kinds.append(kind)
            self.assertIn(body if kind != 17 else body[:1], [{"logger": "app.words", "message": "alarm"}, "z", None])
        self.assertEqual(kinds.count(17), 100)
        self.assertGreater(kinds.count(LOG), 0)
        self.assertGreater(call_id, 0)

    def test_cancelled_where_it_logs(self) -> None:
        for _ in range(20):
            call_id = self.worker.send_call("forever")
            for n in range(20):
                self.assertEqual(self.worker.receive()[2]["message"], str(n))
            self.worker.cancel(call_id)
            while True:
                self.worker.remind(0.05)
                kind, _, body = self.worker.receive()
                if kind != LOG:
                    break
            self.assertEqual((kind, body), (ERROR, CANCELLED))


class Configurations(unittest.TestCase):
    def worker(self, source: str, **hello) -> Worker:
        worker = Worker(source, **{"log_level": 20, **hello})
        self.addCleanup(worker.__exit__)
        worker.ready()
        return worker

    def records(self, worker: Worker, function: str) -> list[tuple[int, str]]:
        call_id = worker.send_call(function)
        records = []
        while True:
            kind, level, answered, body = worker.receive_whole()
            self.assertEqual(answered, call_id)
            if kind != LOG:
                return records
            records.append((level, body["message"]))

    def test_without_a_host_that_listens(self) -> None:
        worker = self.worker(SOURCE, log_level=None)
        self.assertIsNone(worker.call("log", 40, "x"))
        self.assertEqual(worker.call("handlers"), [])
        worker.shutdown()
        self.assertEqual(worker.printed["stderr"], b"x\n")

    def test_the_hosts_level(self) -> None:
        worker = self.worker(SOURCE, log_level=40)
        self.assertIsNone(worker.call("log", 30, "x"))
        self.assertEqual(worker.call("level"), 30)  # WARNING, which nobody changed
        worker = self.worker(SOURCE, log_level=5)
        self.assertEqual(worker.call("level"), 5)

    def test_what_the_user_configured_is_kept(self) -> None:
        source = """
            import logging
            logging.basicConfig(level=logging.ERROR, filename="own.log", format="%(message)s")
            def log():
                for level in (20, 30, 40): logging.log(level, "x%d", level)
            def own(): return open("own.log").read()
        """
        worker = self.worker(source)
        self.assertEqual(self.records(worker, "log"), [(40, "x40")])
        self.assertEqual(worker.call("own"), "x40\n")

    def test_nothing_is_told_twice(self) -> None:
        source = """
            import logging, sys
            import hatchery
            logging.basicConfig(level=logging.DEBUG)
            logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))
            logging.warning("at import")
            @hatchery.on_start
            def start(): logging.warning("at start")
            @hatchery.on_stop
            def stop(): logging.warning("at stop")
            @hatchery.export
            def log(): logging.info("x"); logging.debug("y")
        """
        worker = self.worker(source)
        self.assertEqual(self.records(worker, "log"), [(20, "x")])
        worker.send(bytes.fromhex("0000001410000000" + "00" * 16))
        self.assertEqual(worker.receive_whole(), (LOG, 30, 0, {"logger": "root", "message": "at stop"}))
        self.assertEqual(worker.end(), 0)
        self.assertEqual(worker.printed["stdout"], b"at import\nat start\n")
        self.assertEqual(worker.printed["stderr"], b"WARNING:root:at import\nWARNING:root:at start\n")

    def test_logging_that_is_configured_late(self) -> None:
        source = """
            import logging, logging.config, sys
            def basic(): logging.basicConfig(level=logging.INFO, force=True); log()
            def as_dict():
                root = {"level": "INFO", "handlers": ["console", "file"]}
                console = {"class": "logging.StreamHandler"}
                file = {"class": "logging.FileHandler", "filename": "own.log"}
                handlers = {"console": console, "file": file}
                settings = {"version": 1, "disable_existing_loggers": False, "root": root, "handlers": handlers}
                logging.config.dictConfig(settings)
                log()
            def replaced(): logging.getLogger().handlers = [logging.StreamHandler(sys.stdout)]; log()
            def cleared(): logging.getLogger().handlers.clear(); log()
            def log(): logging.getLogger("app").warning("x")
            def own(): return open("own.log").read()
        """
        worker = self.worker(source)
        for function in ("basic", "as_dict", "replaced", "cleared"):
            with self.subTest(function):
                self.assertEqual(self.records(worker, function), [(30, "x")])
                self.assertEqual(self.records(worker, "log"), [(30, "x")])
        self.assertEqual(worker.call("own"), "x\n" * 2)
        worker.shutdown()
        self.assertEqual(worker.printed, {"stdout": b"", "stderr": b""})

    def test_no_kind_of_handler_tells_a_record_twice(self) -> None:
        source = """
            import logging, logging.handlers, os, queue, sys
            class Subclass(logging.StreamHandler): pass
            class Prints(logging.Handler):
                def emit(self, record): print(self.format(record)); print("!", file=sys.stderr)
            class Console:
                @property
                def file(self): return sys.stdout
            class Rich(logging.Handler):
                console = Console()
                def emit(self, record): self.console.file.write(self.format(record)); self.console.file.flush()
            class Fails(logging.Handler):
                def emit(self, record):
                    try: 1 / 0
                    except ZeroDivisionError: self.handleError(record)
            waiting = queue.SimpleQueue()
            listener = logging.handlers.QueueListener(waiting, logging.StreamHandler(), Prints())
            handlers = {
                "subclass": lambda: Subclass(),
                "descriptor": lambda: logging.StreamHandler(open(os.dup(2), "w")),
                "file": lambda: logging.FileHandler("/dev/stderr"),
                "prints": Prints,
                "rich": Rich,
                "memory": lambda: logging.handlers.MemoryHandler(1, target=logging.StreamHandler()),
                "queue": lambda: logging.handlers.QueueHandler(waiting),
                "fails": Fails,
            }
            def log(kind, name=""):
                listener.start()
                handler = handlers[kind]()
                logger = logging.getLogger(name)
                logger.addHandler(handler)
                logger.warning("x")
                logger.removeHandler(handler)
                listener.stop()
                print("printed", flush=True)
            def own(name):
                logger = logging.getLogger("alone")
                logger.propagate = False
                log(name, "alone")
        """
        worker = self.worker(source)
        kinds = ("subclass", "descriptor", "file", "prints", "rich", "memory", "queue", "fails")
        for name in ("", "app"):
            for kind in kinds:
                with self.subTest(kind, logger=name):
                    call_id = worker.send_call("log", [kind, name])
                    self.assertEqual(worker.receive()[0::2], (LOG, {"logger": name or "root", "message": "x"}))
                    self.assertEqual(worker.answer(call_id), (RESULT, None))
        self.assertIsNone(worker.call("own", "subclass"))  # its records do not reach the root logger
        self.assertIsNone(worker.call("own", "prints"))
        worker.shutdown()
        self.assertEqual(worker.printed["stdout"], b"printed\n" * (2 * len(kinds) + 1) + b"x\nprinted\n")
        errors = worker.printed["stderr"].decode()
        self.assertEqual(errors.count("ZeroDivisionError: division by zero"), 2)
        self.assertEqual([line for line in errors.splitlines() if line in ("x", "!")], ["x", "!"])

    def test_imported_by_a_call(self) -> None:
        source = """
            def log():
                import logging
                logging.warning("x")
            async def log_later(): log()
        """
        for hello in ({}, {"in_flight": 8}, {"in_flight": 8, "threads": 2}):
            with self.subTest(hello):
                worker = self.worker(source, **hello)
                self.assertEqual(self.records(worker, "log"), [])  # printed: what is imported is seen from the next on
                self.assertEqual(self.records(worker, "log"), [(30, "x")])
                self.assertEqual(self.records(worker, "log_later"), [(30, "x")])

    def test_a_forked_child_prints(self) -> None:
        worker = self.worker(SOURCE)
        self.assertEqual(worker.call("forks"), 0)
        self.assertEqual(worker.shutdown(), 0)
        self.assertEqual(worker.printed["stderr"], b"of a child\n")

    def test_at_the_end_of_the_process(self) -> None:
        source = """
            import atexit, logging
            def same(value): return value
            @atexit.register
            def leave(): logging.warning("leaving")
            class Deleted:
                def __del__(self): logging.warning("deleted")
            kept = Deleted()
        """
        worker = self.worker(source)
        self.assertEqual(worker.call("same", 1), 1)
        self.assertEqual(worker.shutdown(), 0)
        kind, _, _, body = worker.receive_whole()
        self.assertEqual((kind, body["message"]), (LOG, "leaving"))
        worker = self.worker(source)
        self.assertEqual(worker.call("same", 1), 1)
        worker.sock.close()
        self.assertEqual(worker.end(), 0)
        self.assertEqual(worker.printed["stderr"], b"")

    def test_bodies_are_small(self) -> None:
        worker = self.worker(SOURCE)
        worker.send_call("log", [30, "Grüße"])
        kind, level, call_id, body = worker.receive_whole()
        self.assertEqual((kind, level, call_id), (LOG, 30, 1))
        self.assertEqual(json.dumps(body), json.dumps({"logger": "app.words", "message": "Grüße"}))


if __name__ == "__main__":
    unittest.main()
