"""Threads that run synchronous functions, when the host asked for some. The main thread then only reads the channel.

A call is cancelled by an exception that the interpreter raises in its thread, between two bytecodes. That must hit
user code of this very call and nothing else:

- `Runner.armed` is the call whose user code may be interrupted. Whoever is about to interrupt says so first
  (`call.raising`), then looks whether it still is armed; the thread disarms first, then waits until nobody is about to.
- After that the thread takes back what was raised and has not come yet: it raises something else in its place, and lets
  that come. What came on the way lands in a `try`.
- Where a function has just ended, nothing is raised: what it returned would be lost, see `_calls`.
"""

from __future__ import annotations

import sys
import threading
from _queue import SimpleQueue
from time import monotonic, sleep
from types import FunctionType

from hatchery import _calls, _errors, _streams, _values, _wire
from hatchery._functions import discard, is_awaitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from hatchery._attachments import Encoded
    from hatchery._calls import Call
    from hatchery._serving import Worker

# How long the worker's end waits for calls that run and have been cancelled.
PATIENCE_SECONDS = 1.0
# How long a thread is let alone that has just left a function: freeing what was there may take it longer.
_BETWEEN_SECONDS = 0.1


def _raise_in(ident: int, error: type[BaseException]) -> None:
    """Raise in a thread when it next runs Python code, in place of what has not come yet."""
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))


def need_ctypes() -> None:
    """Load what calls in threads are cancelled by. Raises `ImportError` where Python was built without it."""
    try:
        import ctypes  # noqa: F401 - at the first cancel it would take too long, and its lack cost the worker
    except Exception as error:
        message = f"threads(n) needs the module ctypes to cancel calls ({type(error).__name__}: {error})"
        raise ImportError(f"{message}: use a Python that has it, or threads(0)") from error


class _Nothing(BaseException):
    """Comes in place of what is taken back: without it Python 3.11 would wait for ever where it is traced."""


class Pool:
    """Runs calls in threads."""

    def __init__(self, worker: Worker, size: int) -> None:
        """Threads are made at the first need, up to `size`."""
        self.worker = worker
        self.jobs: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = SimpleQueue()
        self.undone: list[None] = []  # one for each job that waits or runs
        self.runners: list[Runner] = []
        self._size = size
        self._lock = threading.Lock()  # of credit and turns of streams, and of how many threads there are
        _calls.main.begun_lock = threading.Lock()
        worker.channel.shared = True
        worker.the_inbox().open_to_threads()

    # What the main thread does.

    def serve(self, frame: _wire.Frame) -> None:
        """Take in a call."""
        read = self.worker.read(frame)
        if read is not None:
            call = read[0]
            self.worker.active[call.id] = call
            self._submit(self._call, *read)

    def _submit(self, job: Callable[..., None], *args: Any) -> None:
        self.undone.append(None)
        self.jobs.put((job, args))
        if len(self.runners) < self._size:
            with self._lock:
                if len(self.runners) == self._size:
                    return  # a thread of ours has submitted something too
                runner = Runner(self, len(self.runners) + 1)
                self.runners.append(runner)
            runner.thread.start()

    def cancel(self, call: Call) -> None:
        """Make a call give up that waits for a thread, runs in one, or waits for credit."""
        if call.cancelled:
            return
        call.cancelled = True
        if call.items is None and not call.entered:
            with self._lock:
                begun, call.entered = call.entered, True
            if not begun:  # the thread that takes it will see that it is over
                self.worker.fail(call, {"kind": "cancelled"})
                return
        if call.items is not None:
            with self._lock:
                stepping, call.stepping = call.stepping, True
            if not stepping:
                self._submit(self._drop, call)
                return
        host = self.worker.host
        if host is not None and host.wake(call):
            call.raised = True
            return
        call.raising = True
        end = monotonic() + _BETWEEN_SECONDS
        try:
            for runner in self.runners:
                while runner.armed is call and not call.raised:
                    if runner.is_between() and monotonic() < end:
                        sleep(0)
                        continue
                    call.raised = True
                    _raise_in(runner.ident, _calls.Cancelled)
        finally:
            call.raising = False
        if host is not None:
            host.nudge(call)

    def raise_again(self, runner: Runner, call: Call) -> None:
        """Raise in a thread once more, when it is back in user code."""
        end = monotonic() + PATIENCE_SECONDS
        while runner.armed is call and monotonic() < end:
            call.raising = True
            try:
                frame = sys._current_frames().get(runner.ident)  # noqa: SLF001
                if runner.armed is call and frame and not frame.f_code.co_filename.startswith("<hatchery>/"):
                    call.delivered = False
                    _raise_in(runner.ident, _calls.Cancelled)
                    return
            finally:
                frame = None
                call.raising = False
            sleep(0.0005)

    def credit(self, call: Call, items: int) -> None:
        """Let a stream have more credit, and its turn if it needs one and has begun."""
        with self._lock:
            if call.credit is not None:
                call.credit += items
            if call.items is None or call.stepping or not call.credit or call.cancelled:
                return
            call.stepping = True
        self._submit(self._pump, call)

    def stack(self, call: Call) -> str | None:
        """Return the stack of a call that a thread runs."""
        for runner in self.runners:
            if runner.serves is call:
                from hatchery import _stack

                return _stack.of_frame(sys._current_frames().get(runner.ident))  # noqa: SLF001
        return None

    def finish(self) -> None:
        """Wait for calls that run, which have been cancelled; not for ever, since nothing can end some of them."""
        end = monotonic() + PATIENCE_SECONDS
        while monotonic() < end and self.undone:
            self.worker.the_inbox().take_handed()
            sleep(0.002)
        self.worker.the_inbox().take_handed()

    # What the threads do.

    def _call(self, runner: Runner, call: Call, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        with self._lock:
            over, call.entered = call.entered, True
        if over:
            return  # it was cancelled
        _calls.begins(call.id)
        result, error = runner.run(call, function, args, kwargs)
        worker = self.worker
        if error is not None:
            worker.fail(call, _errors.of_function(call, function, args, kwargs, error))
        elif is_awaitable(result) or (call.credit is not None and hasattr(type(result), "__anext__")):
            call.entered = False  # the loop decides
            worker.the_inbox().hand(self._to_the_loop, call, result)
        elif call.credit is None:
            worker.answer(call, result)
        elif hasattr(type(result), "__next__"):
            with self._lock:
                call.stepping = True
                call.items = result
            self._pump(runner, call)
        else:
            worker.fail(call, _streams.no_stream(result))

    def _to_the_loop(self, call: Call, result: Any) -> None:
        if not call.over:
            self.worker.the_loop().start(call, result)
        elif is_awaitable(result):
            discard(result)  # the call was cancelled meanwhile

    def _pump(self, runner: Runner, call: Call) -> None:
        """Send items until the credit is used up, or it is another job's turn."""
        worker, step = self.worker, call.items.__next__
        turn_ends = monotonic() + _streams.SLICE_SECONDS
        while True:
            with self._lock:
                if not call.credit and not call.cancelled:
                    call.stepping = False
                    return
            if call.cancelled:
                self._drop(runner, call)
                return
            item, error = runner.run(call, step, (), {})
            if error is not None:
                self._stepped_out(runner, call, error)
                return
            if call.cancelled and call.delivered:
                self._close(runner, call)  # it swallowed that
                worker.fail(call, {"kind": "cancelled"})
                return
            try:
                worker.channel.send(_wire.CHUNK, call.id, _values.encode(item))
            except (_values.EncodeError, _wire.FrameTooLargeError) as problem:
                self._close(runner, call)
                worker.fail(call, _errors.unsendable(problem, item, "item"))
                return
            item = None
            with self._lock:
                call.credit = (call.credit or 0) - 1
            if monotonic() > turn_ends:
                if not self.jobs.empty():
                    self._submit(self._pump, call)
                    return
                turn_ends = monotonic() + _streams.SLICE_SECONDS

    def _stepped_out(self, runner: Runner, call: Call, error: BaseException) -> None:
        if isinstance(error, StopIteration):
            _streams.end(self.worker, call)
        elif call.cancelled and type(error) is _calls.Cancelled:
            self._drop(runner, call)  # it may have come between two steps; one that has ended just raises it once more
        else:
            self.worker.fail(call, _errors.of_call(call, error))

    def _drop(self, runner: Runner, call: Call) -> None:
        """End a stream between two steps."""
        runner.serves = call
        try:
            outcome = _streams.thrown(call)
        finally:
            runner.serves = None
        if outcome is None:
            _streams.end(self.worker, call)
        else:
            self.worker.fail(call, outcome)

    def _close(self, runner: Runner, call: Call) -> None:
        close = getattr(call.items, "close", None)
        if close is not None:
            runner.run(call, close, (), {})


class Runner:
    """A thread of the pool."""

    def __init__(self, pool: Pool, number: int) -> None:
        """Leave the end of the process alone: what runs here may never end."""
        self.thread = threading.Thread(target=self._work, name=f"hatchery-{number}", daemon=True)
        self.ident = 0
        self.armed: Call | None = None  # whose user code may be interrupted
        self.serves: Call | None = None  # whose code runs
        self.runs: Callable[..., Any] | None = None  # what is called for it
        self._pool = pool

    def _work(self) -> None:
        """Do one job after the other."""
        self.ident = threading.get_ident()
        _calls.runners[self.ident] = self
        get = self._pool.jobs.get
        while True:
            job = args = None
            job, args = get()
            try:
                job(self, *args)
            except BaseException as error:
                self._failed(args[0], error)
            self._pool.undone.pop()

    def _failed(self, call: Call, error: BaseException) -> None:
        """Answer a call that could not be answered in another way; end the worker if nothing can be."""
        worker = self._pool.worker
        try:
            if not call.over:
                worker.fail(call, _errors.of_call(call, error))
                return
        except BaseException as second:
            error = second
        worker.the_inbox().hand(worker.give_up, error)

    def run(self, call: Call, function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, BaseException | None]:
        """Run user code of a call, and return its result, or what it raised."""
        result, failed = None, None
        self.serves, self.runs = call, function
        try:
            self.armed = call
            if call.cancelled and not call.raised:
                call.raised = True
                raise _calls.Cancelled  # noqa: TRY301
            result = call.own_context().run(function, *args, **kwargs)
        except BaseException as error:
            failed = error
        while True:
            try:
                self._disarm(call)
                break
            except BaseException as error:
                failed = failed or error
        self.serves = self.runs = None
        return result, failed

    def is_between(self) -> bool:
        """Tell whether a function has just ended here, or is about to begin."""
        frame = sys._current_frames().get(self.ident)  # noqa: SLF001
        is_ours = frame is not None and frame.f_code is Runner.run.__code__
        return is_ours and self.runs.__class__ is FunctionType

    def _disarm(self, call: Call) -> None:
        self.armed = None
        while call.raising:
            sleep(0)
        if call.raised:
            try:
                while True:  # it may come, and be swallowed, in a `__del__`
                    _raise_in(self.ident, _Nothing)
                    sleep(0)
            except _Nothing:
                pass

    def send(self, kind: int, call_id: int, body: bytes | Encoded = b"", number: int = 0) -> None:
        """Send a frame from user code, which must not be cut by an interruption."""
        channel, call = self._pool.worker.channel, self.armed
        if call is None:
            channel.send(kind, call_id, body, number)
            return
        try:
            self._disarm(call)
            channel.send(kind, call_id, body, number)
        finally:
            self.armed = call
        if call.cancelled and not call.delivered:
            call.raised = True
            raise _calls.Cancelled

    def swallowed(self, error: BaseException | None) -> bool:
        """Take care of what came where Python swallows everything; False if it is none of ours."""
        return type(error) is _Nothing or (type(error) is _calls.Cancelled and self.raise_again())

    def raise_again(self) -> bool:
        """Raise once more what was swallowed; False if no user code runs."""
        call = self.armed
        if call is None:
            return False
        # Not here: this code runs within what swallows.
        self._pool.worker.the_inbox().hand(self._pool.raise_again, self, call)
        return True
