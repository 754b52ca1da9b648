"""The worker's event loop. `_serving` creates it for the first asynchronous call.

From then on the main thread waits inside the loop, whose reader sorts arriving frames and starts asynchronous calls.
Synchronous functions must run outside, because they may call `asyncio.run()`, which a running loop forbids. So the
loop is left when the inbox holds a frame for them, and entered again afterwards.
"""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar, copy_context
from time import monotonic

from hatchery import _calls, _errors, _streams, _values, _wire
from hatchery._functions import discard, is_awaitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import FrameType
    from typing import Any

    from hatchery._calls import Call
    from hatchery._interfaces import HostCall, Worker


# The loop gets a turn at least this often between synchronous calls that follow each other.
_TURN_SECONDS = 0.001


class Loop:
    """Runs asynchronous user code."""

    def __init__(self, worker: Worker) -> None:
        """Create the loop. It runs only within `run`, `wait` and `receive`."""
        self._worker = worker
        self._channel = worker.channel
        self._inbox = worker.get_inbox()
        self._loop = asyncio.new_event_loop()
        self._is_running = False
        self._reading = False
        self._host_closed = False
        self._leaving: asyncio.Handle | None = None  # a scheduled `_leave`
        self._failed: BaseException | None = None  # ends the worker
        self._next_turn = 0.0  # the latest time of the loop's next turn
        # Synchronous code below waits for this host call; no other synchronous code may start meanwhile.
        self._host_call: HostCall | None = None
        self._task_call: ContextVar[Call] = ContextVar("hatchery call")
        _calls.task_call = self._task_call

    # Called outside of the loop, on the main thread.

    def receive(self) -> _wire.Frame | None:
        """Run the loop until a frame must be served outside of it; None when the host closed the socket."""
        channel, inbox = self._channel, self._inbox
        while True:
            if channel.pending:
                inbox.sort()
            if inbox.queue or inbox.resumed:
                if inbox.async_started or monotonic() > self._next_turn:
                    inbox.async_started = False
                    self._leave_soon()
                    self._run_until_left(reading=True)
                    self._next_turn = monotonic() + _TURN_SECONDS
                frame = inbox.next()
                if frame is not None:
                    return frame
            if channel.broken is not None:
                raise channel.broken
            if self._host_closed:
                channel.check_end()
                return None
            self._run_until_left(reading=True)
            self._next_turn = monotonic() + _TURN_SECONDS

    def wait(self, host_call: HostCall) -> bool:
        """Run the loop while synchronous code waits for a host call; False when the host closed the socket.

        May return before the host call has ended.
        """
        before, self._host_call = self._host_call, host_call
        try:
            if not self._host_closed:
                self._run_until_left(reading=True)
        finally:
            self._host_call = before
        return not self._host_closed

    def run(self, call: Call | None, awaitable: Any) -> Any:
        """Run the loop until an awaitable has ended, and return its result."""
        outcome: list[tuple[Any, BaseException | None]] = []

        async def main() -> None:
            try:
                if call is not None:
                    call.started = True
                    if call.cancelled:
                        discard(awaitable)
                        raise _calls.Cancelled("the call was cancelled")  # noqa: TRY301
                outcome.append((await awaitable, None))
            except BaseException as error:
                outcome.append((None, error))
            finally:
                self._leave_soon()

        task = self._task(call, main())
        if call is not None:
            call.task = task
            self._worker.active[call.id] = call
            _calls.mark_started(call.id)
        while not outcome:
            self._run_until_left(reading=call is not None)
        result, error = outcome.pop()
        try:
            if error is not None:
                raise error
            return result
        finally:
            error = None  # breaks a reference cycle with this frame

    def finish(self) -> None:
        """Wait for the tasks of the calls that `stop` has cancelled."""
        tasks = [call.task for call in self._worker.active.values() if call.task is not None]
        if tasks:
            self.run(None, asyncio.wait(tasks))

    def close(self) -> None:
        """Cancel all remaining tasks and close the loop."""
        loop = self._loop
        if loop.is_closed():
            return
        if self._reading:
            self._reading = False
            loop.remove_reader(self._channel.fd)
            if self._inbox.wake_fd is not None:
                loop.remove_reader(self._inbox.wake_fd)

        async def end() -> None:
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await loop.shutdown_asyncgens()

        try:
            self.run(None, end())
        finally:
            loop.close()

    def start(self, call: Call, result: Any) -> None:
        """Start a task for the result of a call's function: an awaitable, or an asynchronous iterator to stream."""
        if self._loop.is_closed():
            self._replace_loop()
        self._worker.active[call.id] = call
        call.task = call.own_context().run(self._loop.create_task, self._drive(call, result))

    def cancel(self, call: Call) -> None:
        """Cancel a call's task. A second cancel does nothing."""
        if call.cancelled:
            return
        call.cancelled = True
        if call.task is not None and call.started:  # else `_drive` sees `cancelled` first
            call.task.cancel()

    def wake(self, call: Call) -> None:
        """Continue a stream that waited for credit."""
        future = call.credit_future
        if future is not None and not future.done():
            future.set_result(None)

    def interrupt(self) -> None:
        """Wake synchronous code that waits for a host call, because a signal handler has raised."""
        if self._host_call is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._leave)

    @property
    def is_running(self) -> bool:
        """Whether the main thread is inside the loop."""
        return self._is_running

    def owns(self, loop: object) -> bool:
        """Tell whether `loop` is the worker's event loop."""
        return loop is self._loop

    # Tasks.

    async def _answer(self, call: Call, result: Any) -> None:
        """Answer a call with the result of its function, which may be awaitable or a stream."""
        if _must_be_awaited(call, result):
            result = await result
        if call.credit is None:
            self._worker.answer(call, result)
        elif hasattr(type(result), "__anext__"):
            await self._stream(call, result)
        elif hasattr(type(result), "__next__"):
            call.items, call.task = result, None
            call.context = copy_context()  # the task's, with the variables that the function has set
            self._worker.continue_stream(call)
            if self._inbox.resumed:
                self._leave_soon()
        else:
            self._worker.fail(call, _streams.not_iterable(result))

    async def _stream(self, call: Call, items: Any) -> None:
        """Send the items of an asynchronous iterator as credit allows."""
        send, encode, channel, call_id = _calls.main.send, _values.encode, self._channel, call.id
        call.async_items = items
        try:
            turn_ends = monotonic() + _streams.SLICE_SECONDS
            while True:
                while not call.credit:
                    call.credit_future = self._loop.create_future()
                    await call.credit_future
                    call.credit_future = None
                    turn_ends = monotonic() + _streams.SLICE_SECONDS
                try:
                    item = await items.__anext__()
                except StopAsyncIteration:
                    break
                if call.cancelled:  # the iterator has swallowed it
                    raise asyncio.CancelledError  # noqa: TRY301
                try:
                    send(channel, _wire.CHUNK, call_id, encode(item))
                except (_values.EncodeError, _wire.FrameTooLargeError) as error:
                    raise _UnsendableError(_errors.unsendable(error, item, "item")) from None
                item = None
                call.credit -= 1
                if monotonic() > turn_ends:
                    await asyncio.sleep(0)
                    turn_ends = monotonic() + _streams.SLICE_SECONDS
        except BaseException as error:
            if hasattr(items, "aclose") and not isinstance(error, GeneratorExit):
                try:
                    await items.aclose()
                except BaseException:
                    if call.cancelled:
                        raise  # the answer tells how the iterator ended
            raise
        _streams.end(self._worker, call)

    async def _drive(self, call: Call, result: Any) -> None:
        """Run the task of a call and answer the call. Catches all exceptions of user code, `SystemExit` too."""
        worker = self._worker
        failed: dict[str, Any] | None = None
        self._task_call.set(call)  # in the task's own context
        call.started = True
        if call.id > _calls.main.start_marker[0] and not call.cancelled:
            _calls.mark_started(call.id)
        try:
            try:
                if call.credit is None and not call.cancelled:
                    worker.answer(call, await result)
                elif call.cancelled:
                    if _must_be_awaited(call, result):
                        discard(result)
                    failed = {"kind": "cancelled"}
                else:
                    await self._answer(call, result)
            except _UnsendableError as error:
                failed = error.body
            except BaseException as error:
                if isinstance(error, OSError) and call.answered:
                    raise  # the answer could not be sent
                if isinstance(error, GeneratorExit) and (call.answered or self._loop.is_closed()):
                    raise  # the loop is closed, or the call is answered already
                failed = _errors.of_call(call, error)
            if failed is not None:
                worker.fail(call, failed)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._abort(error)

    # Internals.

    def _task(self, call: Call | None, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self._loop.is_closed():
            self._replace_loop()
        context = copy_context() if call is None else call.own_context().copy()
        if call is not None and _calls.task_call is not None:
            context.run(_calls.task_call.set, call)
        task: asyncio.Task[None] = context.run(self._loop.create_task, coroutine)
        return task

    def _run_until_left(self, *, reading: bool) -> None:
        """Run the loop until `_leave`, or until user code stops it."""
        if self._loop.is_closed():
            self._replace_loop()
        if reading and not self._reading:
            self._loop.add_reader(self._channel.fd, self._on_readable)
            if self._inbox.wake_fd is not None:
                self._loop.add_reader(self._inbox.wake_fd, self._on_posted)
            self._reading = True
        self._is_running = True
        try:
            self._loop.run_forever()
        except _LeaveError:
            pass
        except BaseException as error:  # asyncio lets SystemExit and KeyboardInterrupt of a task through
            _report(error)
        finally:
            self._is_running = False
        failed, self._failed = self._failed, None  # cleared first: `stop` and `close` run the loop again
        if failed is not None:
            raise failed

    def _on_readable(self) -> None:
        channel = self._channel
        try:
            if not self._is_running:  # a synchronous function of the user's runs this loop
                self._loop.remove_reader(channel.fd)
                self._reading = False
                return
            # The loop may have been left and entered since the event, so the data may be read already.
            if channel.is_readable() and not channel.read_some():
                self._host_closed = True
            self._inbox.sort()
        except BaseException as error:
            self._abort(error)
            return
        self._leave_if_needed()

    def _on_posted(self) -> None:
        try:
            self._inbox.run_posted()
        except BaseException as error:
            self._abort(error)
            return
        self._leave_if_needed()

    def _leave_if_needed(self) -> None:
        """Leave the loop when the main thread has work outside."""
        host_call, inbox = self._host_call, self._inbox
        has_ended = self._channel.broken is not None or self._host_closed
        if has_ended or (host_call.is_over() if host_call is not None else inbox.queue or inbox.resumed):
            self._leave()

    def _leave_soon(self) -> None:
        """Leave the loop after the callbacks that are ready now."""
        if self._leaving is None:
            self._leaving = self._loop.call_soon(self._leave)

    def _leave(self) -> None:
        """Leave the loop. Only a callback of the loop may call this.

        Raises an exception instead of calling `stop`, which a nested run of the loop (`nest_asyncio`) would take for
        its own. During a nested run, the loop is left later.
        """
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if not self._is_running:
            return  # a synchronous function of the user's runs this loop
        if not _is_nested():
            raise _LeaveError
        self._leaving = self._loop.call_later(_TURN_SECONDS, self._leave)

    def _replace_loop(self) -> None:
        """Replace a loop that user code has closed, and fail the calls that ran on it."""
        self._loop = asyncio.new_event_loop()
        self._reading, self._leaving = False, None
        for call in list(self._worker.active.values()):
            if call.items is None:
                error = RuntimeError("the worker's event loop was closed by user code")
                self._worker.fail(call, _errors.of_call(call, error))

    def _abort(self, error: BaseException) -> None:
        """End the worker with this error."""
        self._failed = self._failed or error
        self._leave_soon()


def _is_nested() -> bool:
    """Tell whether user code on the loop runs the loop again (`nest_asyncio`)."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    callbacks = 0
    while frame is not None and frame.f_code is not _RUN_UNTIL_LEFT:
        callbacks += frame.f_code is _CALLBACK
        frame = frame.f_back
    return callbacks > 1


_RUN_UNTIL_LEFT = Loop._run_until_left.__code__  # noqa: SLF001
_CALLBACK = asyncio.Handle._run.__code__  # noqa: SLF001


class _LeaveError(SystemExit):
    """Leaves the loop: asyncio lets a `SystemExit` of a callback pass."""


class _UnsendableError(Exception):
    """An item of an asynchronous stream has no form on the wire."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__()
        self.body = body


def _must_be_awaited(call: Call, result: Any) -> bool:
    """Tell whether a function's result must be awaited. An asynchronous iterator of a stream is not."""
    streams = call.credit is not None and hasattr(type(result), "__anext__")
    return not streams and is_awaitable(result)


def _report(error: BaseException) -> None:
    try:
        from traceback import print_exception

        print_exception(type(error), error, error.__traceback__, file=sys.stderr)
    except Exception:  # noqa: S110
        pass  # user code closed it
