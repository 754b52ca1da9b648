"""The pool of threads that runs synchronous functions, if the host asked for threads. `_serving` creates it.

The main thread then only reads the channel. To cancel a call, it has the interpreter raise an exception in the call's
thread, between two bytecodes. The exception must reach user code of this call and nothing else:

- `Runner.interruptible` is the call whose user code may be interrupted. The main thread first sets `call.raising`, then
  checks `interruptible`, then raises. The pool thread first clears `interruptible`, then waits while `raising` is set.
- Then the pool thread replaces a pending asynchronous exception with a sentinel and consumes the sentinel. A `try`
  catches an exception that was delivered before that.
- Nothing is raised at the moment a function has just returned: its result would be lost, see `_calls`.
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

    from hatchery._calls import Call
    from hatchery._interfaces import Worker
    from hatchery._wire import Encoded

# How long the end of the worker waits for cancelled calls that still run.
PATIENCE_SECONDS = 1.0
# How long a cancel waits while a thread has just left a function: freeing the function's objects may take time.
_BOUNDARY_SECONDS = 0.1


def _raise_in(ident: int, error: type[BaseException]) -> None:
    """Raise in a thread at its next bytecode. Replaces an exception that is still pending there."""
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))


def need_ctypes() -> None:
    """Import ctypes, which cancels calls in threads. Raises `ImportError` where Python was built without it."""
    try:
        import ctypes  # noqa: F401 - too slow for the first cancel, and its lack would end the worker there
    except Exception as error:
        message = f"threads(n) needs the module ctypes to cancel calls ({type(error).__name__}: {error})"
        raise ImportError(f"{message}: use a Python that has ctypes, or set threads(0)") from error


class _Nothing(BaseException):
    """The sentinel that replaces a pending `Cancelled`. Just clearing it makes a traced Python 3.11 hang."""


class Pool:
    """Runs calls in threads."""

    def __init__(self, worker: Worker, size: int) -> None:
        """Create no thread yet: each job starts one, up to `size`."""
        self.worker = worker
        self.jobs: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = SimpleQueue()
        self.unfinished: list[None] = []  # one element for each job that waits or runs
        self.runners: list[Runner] = []
        self._size = size
        self._lock = threading.Lock()  # guards credit and turns of streams, and the number of threads
        _calls.main.start_marker_lock = threading.Lock()
        worker.channel.shared = True
        worker.get_inbox().open_to_threads()

    # Called on the main thread.

    def serve(self, frame: _wire.Frame) -> None:
        """Submit a call to the threads."""
        read = self.worker.read(frame)
        if read is not None:
            call = read[0]
            self.worker.active[call.id] = call
            self._submit(self._call, *read)

    def _submit(self, job: Callable[..., None], *args: Any) -> None:
        self.unfinished.append(None)
        self.jobs.put((job, args))
        if len(self.runners) < self._size:
            with self._lock:
                if len(self.runners) == self._size:
                    return  # another thread has just started the last one
                runner = Runner(self, len(self.runners) + 1)
                self.runners.append(runner)
            runner.thread.start()

    def cancel(self, call: Call) -> None:
        """Cancel a call that waits for a thread, runs in one, or is a stream that waits for credit."""
        if call.cancelled:
            return
        call.cancelled = True
        if call.items is None and not call.started:
            with self._lock:
                was_started, call.started = call.started, True
            if not was_started:  # the thread that takes the job skips it
                self.worker.fail(call, {"kind": "cancelled"})
                return
        if call.items is not None:
            with self._lock:
                stepping, call.stepping = call.stepping, True
            if not stepping:
                self._submit(self._drop, call)
                return
        host = self.worker.host
        if host is not None and host.wake_thread(call):
            call.raised = True
            return
        call.raising = True
        end = monotonic() + _BOUNDARY_SECONDS
        try:
            for runner in self.runners:
                while runner.interruptible is call and not call.raised:
                    if runner.is_at_boundary() and monotonic() < end:
                        sleep(0)
                        continue
                    call.raised = True
                    _raise_in(runner.ident, _calls.Cancelled)
        finally:
            call.raising = False
        if host is not None:
            host.wake_loop(call)

    def raise_again(self, runner: Runner, call: Call) -> None:
        """Raise `Cancelled` in a thread again, once the thread is back in user code."""
        end = monotonic() + PATIENCE_SECONDS
        while runner.interruptible is call and monotonic() < end:
            call.raising = True
            try:
                frame = sys._current_frames().get(runner.ident)  # noqa: SLF001
                if runner.interruptible is call and frame and not frame.f_code.co_filename.startswith("<hatchery>/"):
                    call.delivered = False
                    _raise_in(runner.ident, _calls.Cancelled)
                    return
            finally:
                frame = None
                call.raising = False
            sleep(0.0005)

    def credit(self, call: Call, items: int) -> None:
        """Add credit to a stream, and submit its next turn if it waits for credit."""
        with self._lock:
            if call.credit is not None:
                call.credit += items
            if call.items is None or call.stepping or not call.credit or call.cancelled:
                return
            call.stepping = True
        self._submit(self._send_items, call)

    def stack(self, call: Call) -> str | None:
        """Return the stack of a call that a thread runs."""
        for runner in self.runners:
            if runner.call is call:
                from hatchery import _stack

                return _stack.of_frame(sys._current_frames().get(runner.ident))  # noqa: SLF001
        return None

    def finish(self) -> None:
        """Wait for cancelled calls that still run, up to `PATIENCE_SECONDS`: some code cannot be interrupted."""
        end = monotonic() + PATIENCE_SECONDS
        while monotonic() < end and self.unfinished:
            self.worker.get_inbox().run_posted()
            sleep(0.002)
        self.worker.get_inbox().run_posted()

    # Called on the pool threads.

    def _call(self, runner: Runner, call: Call, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        with self._lock:
            was_cancelled, call.started = call.started, True
        if was_cancelled:
            return
        _calls.mark_started(call.id)
        result, error = runner.run(call, function, args, kwargs)
        worker = self.worker
        if error is not None:
            worker.fail(call, _errors.of_function(call, function, args, kwargs, error))
        elif is_awaitable(result) or (call.credit is not None and hasattr(type(result), "__anext__")):
            call.started = False  # `_loop` sets it when the task runs
            worker.get_inbox().post(self._to_the_loop, call, result)
        elif call.credit is None:
            worker.answer(call, result)
        elif hasattr(type(result), "__next__"):
            with self._lock:
                call.stepping = True
                call.items = result
            self._send_items(runner, call)
        else:
            worker.fail(call, _streams.not_iterable(result))

    def _to_the_loop(self, call: Call, result: Any) -> None:
        if not call.answered:
            self.worker.get_loop().start(call, result)
        elif is_awaitable(result):
            discard(result)  # the call has been cancelled meanwhile

    def _send_items(self, runner: Runner, call: Call) -> None:
        """Send items until the credit is used up, or the turn is over and other jobs wait."""
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
                self._handle_step_error(runner, call, error)
                return
            if call.cancelled and call.delivered:
                self._close(runner, call)  # the iterator has swallowed `Cancelled`
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
                    self._submit(self._send_items, call)
                    return
                turn_ends = monotonic() + _streams.SLICE_SECONDS

    def _handle_step_error(self, runner: Runner, call: Call, error: BaseException) -> None:
        if isinstance(error, StopIteration):
            _streams.end(self.worker, call)
        elif call.cancelled and type(error) is _calls.Cancelled:
            self._drop(
                runner, call
            )  # the cancel may have come between two items; an iterator that has ended does not run again
        else:
            self.worker.fail(call, _errors.of_call(call, error))

    def _drop(self, runner: Runner, call: Call) -> None:
        """End a stream between two items, because its call is cancelled."""
        runner.call = call
        try:
            outcome = _streams.throw_cancelled(call)
        finally:
            runner.call = None
        if outcome is None:
            _streams.end(self.worker, call)
        else:
            self.worker.fail(call, outcome)

    def _close(self, runner: Runner, call: Call) -> None:
        close = getattr(call.items, "close", None)
        if close is not None:
            runner.run(call, close, (), {})


class Runner:
    """One thread of the pool."""

    def __init__(self, pool: Pool, number: int) -> None:
        """Create a daemon thread: user code in it may never end, and must not keep the process alive."""
        self.thread = threading.Thread(target=self._work, name=f"hatchery-{number}", daemon=True)
        self.ident = 0
        self.interruptible: Call | None = None  # the call whose user code may be interrupted
        self.call: Call | None = None  # the call whose code runs
        self.function: Callable[..., Any] | None = None  # the function of that call that runs
        self._pool = pool

    def _work(self) -> None:
        """Run jobs, one after the other, for ever."""
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
            self._pool.unfinished.pop()

    def _failed(self, call: Call, error: BaseException) -> None:
        """Answer a call whose job raised; end the worker if that fails too."""
        worker = self._pool.worker
        try:
            if not call.answered:
                worker.fail(call, _errors.of_call(call, error))
                return
        except BaseException as second:
            error = second
        worker.get_inbox().post(worker.abort, error)

    def run(self, call: Call, function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, BaseException | None]:
        """Run user code of a call. Returns the result, or the exception that the code raised."""
        result, failed = None, None
        self.call, self.function = call, function
        try:
            self.interruptible = call
            if call.cancelled and not call.raised:
                call.raised = True
                raise _calls.Cancelled  # noqa: TRY301
            result = call.own_context().run(function, *args, **kwargs)
        except BaseException as error:
            failed = error
        while True:
            try:
                self._leave_user_code(call)
                break
            except BaseException as error:
                failed = failed or error
        self.call = self.function = None
        return result, failed

    def is_at_boundary(self) -> bool:
        """Tell whether a function has just returned in this thread, or is about to be called."""
        frame = sys._current_frames().get(self.ident)  # noqa: SLF001
        is_ours = frame is not None and frame.f_code is Runner.run.__code__
        return is_ours and self.function.__class__ is FunctionType

    def _leave_user_code(self, call: Call) -> None:
        self.interruptible = None
        while call.raising:
            sleep(0)
        if call.raised:
            try:
                while True:  # a `__del__` may swallow the sentinel
                    _raise_in(self.ident, _Nothing)
                    sleep(0)
            except _Nothing:
                pass

    def send(self, kind: int, call_id: int, body: bytes | Encoded = b"", number: int = 0) -> None:
        """Send a frame from user code. A cancel is held back until the frame is complete."""
        channel, call = self._pool.worker.channel, self.interruptible
        if call is None:
            channel.send(kind, call_id, body, number)
            return
        try:
            self._leave_user_code(call)
            channel.send(kind, call_id, body, number)
        finally:
            self.interruptible = call
        if call.cancelled and not call.delivered:
            call.raised = True
            raise _calls.Cancelled

    def swallowed(self, error: BaseException | None) -> bool:
        """Handle an exception that Python swallowed in this thread; False if the exception is not ours."""
        return type(error) is _Nothing or (type(error) is _calls.Cancelled and self.raise_again())

    def raise_again(self) -> bool:
        """Have `Cancelled` raised again after it was swallowed; False if no user code runs."""
        call = self.interruptible
        if call is None:
            return False
        # The main thread does it: an exception raised here would be swallowed too.
        self._pool.worker.get_inbox().post(self._pool.raise_again, self, call)
        return True
