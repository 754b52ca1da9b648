"""The worker's event loop, made when something asynchronous is called for the first time.

From then on the main thread is in the loop, whose reader serves asynchronous calls, and leaves it only for what must
run outside: synchronous functions may call `asyncio.run()`, which no running loop allows. What that is waits in the
inbox until the loop has stopped.
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
    from hatchery._host import Waiter
    from hatchery._serving import Worker


# How long the tasks of the loop may have to wait while synchronous calls are served one after the other.
_TURN_SECONDS = 0.001


class Loop:
    """Runs asynchronous user code."""

    def __init__(self, worker: Worker) -> None:
        """Make the loop, which runs only within `run` and `receive`."""
        self._worker = worker
        self._channel = worker.channel
        self._inbox = worker.the_inbox()
        self._loop = asyncio.new_event_loop()
        self._inside = False
        self._reading = False
        self._ended = False  # the host closed its end
        self._leaving: asyncio.Handle | None = None  # what will leave the loop
        self._failed: BaseException | None = None  # what the worker cannot go on after
        self._turn_at = 0.0  # when the loop has its next turn at the latest
        self._waits: Waiter | None = None  # what synchronous code waits for below, which may not be joined by other
        self._of_task: ContextVar[Call] = ContextVar("hatchery call")
        _calls.of_task = self._of_task

    # What the main thread does.

    def receive(self) -> _wire.Frame | None:
        """Run the loop until a frame comes that must be served outside of it; None at the end."""
        channel, inbox = self._channel, self._inbox
        while True:
            if channel.pending:
                inbox.sort()
            if inbox.queue or inbox.resumed:
                if inbox.began or monotonic() > self._turn_at:
                    inbox.began = False
                    self._leave_soon()
                    self._turn(reading=True)
                    self._turn_at = monotonic() + _TURN_SECONDS
                frame = inbox.next()
                if frame is not None:
                    return frame
            if channel.broken is not None:
                raise channel.broken
            if self._ended:
                channel.check_end()
                return None
            self._turn(reading=True)
            self._turn_at = monotonic() + _TURN_SECONDS

    def wait(self, waiter: Waiter) -> bool:
        """Let the loop run until a host call may have ended for which synchronous code waits; False at the end."""
        before, self._waits = self._waits, waiter
        try:
            if not self._ended:
                self._turn(reading=True)
        finally:
            self._waits = before
        return not self._ended

    def run(self, call: Call | None, awaitable: Any) -> Any:
        """Await something, running the loop until it has ended, and return its result."""
        outcome: list[tuple[Any, BaseException | None]] = []

        async def main() -> None:
            try:
                if call is not None:
                    call.entered = True
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
            _calls.begins(call.id)
        while not outcome:
            self._turn(reading=call is not None)
        result, error = outcome.pop()
        try:
            if error is not None:
                raise error
            return result
        finally:
            error = None  # it knows this frame

    def finish(self) -> None:
        """Wait for the tasks of calls, which have been cancelled."""
        tasks = [call.task for call in self._worker.active.values() if call.task is not None]
        if tasks:
            self.run(None, asyncio.wait(tasks))

    def close(self) -> None:
        """End what is left on the loop."""
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
        """Begin a task for what a call's function returned: an awaitable, or an asynchronous iterator to stream."""
        if self._loop.is_closed():
            self._renew()
        self._worker.active[call.id] = call
        call.task = call.own_context().run(self._loop.create_task, self._drive(call, result))

    def cancel(self, call: Call) -> None:
        """Cancel a call's task, unless that was done before."""
        if call.cancelled:
            return
        call.cancelled = True
        if call.task is not None and call.entered:  # else it will not even begin
            call.task.cancel()

    def wake(self, call: Call) -> None:
        """Let a stream go on that has got credit."""
        waiter = call.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def interrupt(self) -> None:
        """Let synchronous code go on that waits for a host call, because of a signal."""
        if self._waits is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._leave)

    @property
    def is_running(self) -> bool:
        """Whether this is asked within it."""
        return self._inside

    def is_ours(self, loop: object) -> bool:
        """Tell whether it is this loop."""
        return loop is self._loop

    # What the tasks do.

    async def _answer(self, call: Call, result: Any) -> None:
        """Await what a function returned, and answer with its result."""
        if _must_be_awaited(call, result):
            result = await result
        if call.credit is None:
            self._worker.answer(call, result)
        elif hasattr(type(result), "__anext__"):
            await self._stream(call, result)
        elif hasattr(type(result), "__next__"):
            call.items, call.task = result, None
            call.context = copy_context()  # the function's own, of which this task has a copy
            self._worker.step_on(call)
            if self._inbox.resumed:
                self._leave_soon()
        else:
            self._worker.fail(call, _streams.no_stream(result))

    async def _stream(self, call: Call, items: Any) -> None:
        """Send the items of an asynchronous iterator, as many as there is credit for."""
        send, encode, channel, call_id = _calls.main.send, _values.encode, self._channel, call.id
        call.async_items = items
        try:
            turn_ends = monotonic() + _streams.SLICE_SECONDS
            while True:
                while not call.credit:
                    call.waiter = self._loop.create_future()
                    await call.waiter
                    call.waiter = None
                    turn_ends = monotonic() + _streams.SLICE_SECONDS
                try:
                    item = await items.__anext__()
                except StopAsyncIteration:
                    break
                if call.cancelled:  # which it swallowed
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
                        raise  # how it ended is the answer
            raise
        _streams.end(self._worker, call)

    async def _drive(self, call: Call, result: Any) -> None:
        """Answer a call. Nothing that user code raises ends the task badly, SystemExit least of all."""
        worker = self._worker
        failed: dict[str, Any] | None = None
        self._of_task.set(call)  # in the task's own context
        call.entered = True
        if call.id > _calls.main.begun[0] and not call.cancelled:
            _calls.begins(call.id)
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
                if isinstance(error, OSError) and call.over:
                    raise  # it could not be answered
                if isinstance(error, GeneratorExit) and (call.over or self._loop.is_closed()):
                    raise  # with its loop; it has been answered, or nobody waits for that
                failed = _errors.of_call(call, error)
            if failed is not None:
                worker.fail(call, failed)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._fail(error)

    # Within.

    def _task(self, call: Call | None, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self._loop.is_closed():
            self._renew()
        context = copy_context() if call is None else call.own_context().copy()
        if call is not None and _calls.of_task is not None:
            context.run(_calls.of_task.set, call)
        task: asyncio.Task[None] = context.run(self._loop.create_task, coroutine)
        return task

    def _turn(self, *, reading: bool) -> None:
        """Run the loop until it is stopped, by us or by user code."""
        if self._loop.is_closed():
            self._renew()
        if reading and not self._reading:
            self._loop.add_reader(self._channel.fd, self._readable)
            if self._inbox.wake_fd is not None:
                self._loop.add_reader(self._inbox.wake_fd, self._handed)
            self._reading = True
        self._inside = True
        try:
            self._loop.run_forever()
        except _LeaveError:
            pass
        except BaseException as error:  # SystemExit, KeyboardInterrupt: they pass through the tasks of user code
            _report(error)
        finally:
            self._inside = False
        failed, self._failed = self._failed, None  # what is left can still be ended in the loop
        if failed is not None:
            raise failed

    def _readable(self) -> None:
        channel = self._channel
        try:
            if not self._inside:  # user code runs this loop, from a synchronous function
                self._loop.remove_reader(channel.fd)
                self._reading = False
                return
            # The loop may have been left between the event and this, and another event have come.
            if channel.is_readable() and not channel.read_some():
                self._ended = True
            self._inbox.sort()
        except BaseException as error:
            self._fail(error)
            return
        self._leave_if_needed()

    def _handed(self) -> None:
        try:
            self._inbox.take_handed()
        except BaseException as error:
            self._fail(error)
            return
        self._leave_if_needed()

    def _leave_if_needed(self) -> None:
        """Leave the loop when there is something to do outside."""
        waits, inbox, has_ended = self._waits, self._inbox, self._channel.broken is not None or self._ended
        if has_ended or (waits.is_over() if waits is not None else inbox.queue or inbox.resumed):
            self._leave()

    def _leave_soon(self) -> None:
        """Leave the loop once all have had their turn that wait for it now."""
        if self._leaving is None:
            self._leaving = self._loop.call_soon(self._leave)

    def _leave(self) -> None:
        """Leave the loop; only a callback of the loop may do this.

        It does so by an exception and not by `stop`: user code that runs the loop within itself (`nest_asyncio`)
        would take the stop for its own. While it does that, the loop is left later.
        """
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if not self._inside:
            return  # a synchronous function runs this loop
        if not _is_nested():
            raise _LeaveError
        self._leaving = self._loop.call_later(_TURN_SECONDS, self._leave)

    def _renew(self) -> None:
        """Replace a loop that user code closed."""
        self._loop = asyncio.new_event_loop()
        self._reading, self._leaving = False, None
        for call in list(self._worker.active.values()):
            if call.items is None:
                error = RuntimeError("the worker's event loop was closed by user code")
                self._worker.fail(call, _errors.of_call(call, error))

    def _fail(self, error: BaseException) -> None:
        """End the worker: there is no going on after this."""
        self._failed = self._failed or error
        self._leave_soon()


def _is_nested() -> bool:
    """Tell whether user code that the loop runs has begun to run it once more (`nest_asyncio`)."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    callbacks = 0
    while frame is not None and frame.f_code is not _TURN:
        callbacks += frame.f_code is _CALLBACK
        frame = frame.f_back
    return callbacks > 1


_TURN = Loop._turn.__code__  # noqa: SLF001
_CALLBACK = asyncio.Handle._run.__code__  # noqa: SLF001


class _LeaveError(SystemExit):
    """Leaves the loop: asyncio lets a `SystemExit` of a callback pass."""


class _UnsendableError(Exception):
    """An item of an asynchronous stream has no form on the wire."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__()
        self.body = body


def _must_be_awaited(call: Call, result: Any) -> bool:
    """Tell whether a call's result comes of awaiting this. What a stream can iterate over is not awaited."""
    streams = call.credit is not None and hasattr(type(result), "__anext__")
    return not streams and is_awaitable(result)


def _report(error: BaseException) -> None:
    try:
        from traceback import print_exception

        print_exception(type(error), error, error.__traceback__, file=sys.stderr)
    except Exception:  # noqa: S110
        pass  # user code closed it
