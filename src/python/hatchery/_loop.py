"""The worker's event loop, made when something asynchronous is called for the first time.

From then on the main thread is in the loop, whose reader serves asynchronous calls, and leaves it only for what must
run outside: synchronous functions may call `asyncio.run()`, which no running loop allows. Frames are served in the
order of their arrival: one for the outside stays at the front of `channel.pending` until the loop has stopped.
"""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar, copy_context
from time import monotonic
from types import CoroutineType, FunctionType

from hatchery import _calls, _errors, _functions, _streams, _values, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from hatchery._calls import Call
    from hatchery._serving import Worker


class Loop:
    """Runs asynchronous user code."""

    def __init__(self, worker: Worker) -> None:
        """Make the loop, which runs only within `run` and `receive`."""
        self._worker = worker
        self._channel = worker.channel
        self._async_names: set[bytes] | None = None
        self._loop = _new_loop()
        self._inside = False
        self._reading = False
        self._ended = False  # the host closed its end
        self._failed: BaseException | None = None  # what the worker cannot go on after
        self._resumed: list[Call] = []  # streams of the main thread that wait for their next turn
        _calls.of_task = ContextVar("hatchery call")

    # What the main thread does.

    def receive(self) -> _wire.Frame | None:
        """Run the loop until a frame comes that must be served outside of it; None at the end."""
        channel = self._channel
        if self._async_names is None:  # at the first frame: start hooks need a loop before there are functions
            functions = self._worker.functions.items()
            self._async_names = {name.encode() for name, function in functions if _functions.is_async(function)}
        while True:
            while channel.pending:
                if self._is_for_outside(channel.pending[0]):
                    return channel.pending.pop(0)
                self._serve(channel.pending.pop(0))
            if channel.broken is not None:
                raise channel.broken
            if self._ended:
                if channel.in_mid_frame:
                    raise ConnectionError("the host closed the socket in the middle of a frame")
                return None
            if self._resumed:
                self._loop.call_soon(self._loop.stop)
            self._turn(reading=True)
            if self._resumed and not channel.pending:
                call = self._resumed.pop(0)
                return _wire.CREDIT, _wire.NO_BODY, 0, call.id, b"", ()

    def run(self, call: Call | None, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end, with the loop, and return what it returns."""
        outcome: list[tuple[Any, BaseException | None]] = []

        async def main() -> None:
            try:
                if call is not None:
                    call.entered = True
                    if call.cancelled:
                        coroutine.close()
                        raise _calls.Cancelled("the call was cancelled")  # noqa: TRY301
                outcome.append((await coroutine, None))
            except BaseException as error:
                outcome.append((None, error))
            finally:
                self._loop.stop()

        task = self._task(call, main())
        if call is not None:
            call.task = task
            self._worker.active[call.id] = call
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
        """Begin a task for what a call's function returned: a coroutine, or an asynchronous iterator to stream."""
        self._worker.active[call.id] = call
        call.task = self._task(call, self._drive(call, result))

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

    def resume_soon(self, call: Call) -> None:
        """Let the loop run, then step on through this stream."""
        self._resumed.append(call)

    # What the tasks do.

    async def _answer(self, call: Call, result: Any) -> None:
        """Await what a function returned, and answer with its result."""
        if result.__class__ is CoroutineType:
            result = await result
        if call.credit is None:
            self._worker.answer(call, result)
        elif hasattr(type(result), "__anext__"):
            await self._stream(call, result)
        elif hasattr(type(result), "__next__"):
            call.items, call.task = result, None
            self.resume_soon(call)
            self._loop.stop()
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
        call.entered = True
        try:
            try:
                if call.cancelled:
                    if result.__class__ is CoroutineType:
                        result.close()
                    failed = {"kind": "cancelled"}
                else:
                    await self._answer(call, result)
            except _UnsendableError as error:
                failed = error.body
            except BaseException as error:
                if isinstance(error, OSError) and call.over:
                    raise  # it could not be answered
                if isinstance(error, GeneratorExit) and self._loop.is_closed():
                    raise
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
        context = copy_context()
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
            self._reading = True
        self._inside = True
        try:
            self._loop.run_forever()
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
            if not channel.read_some():
                self._ended = True
            while channel.pending and not self._is_for_outside(channel.pending[0]):
                self._serve(channel.pending.pop(0))
            if channel.pending or channel.broken is not None or self._ended:
                self._loop.stop()
        except BaseException as error:
            self._fail(error)

    def _is_for_outside(self, frame: _wire.Frame) -> bool:
        kind, _, _, call_id, body, attachments = frame
        if kind == _wire.CALL:
            if attachments:
                return True
            start = bytes(body[:256])  # the name is the first thing in it
            return self._async_names is None or start[2 : start.find(b'"', 2)] not in self._async_names
        if kind in (_wire.CANCEL, _wire.CREDIT):
            call = self._worker.active.get(call_id)
            return call is not None and call.items is not None
        return kind != _wire.STACK

    def _serve(self, frame: _wire.Frame) -> None:
        """Serve a frame within the loop."""
        worker = self._worker
        kind, _, timeout_ms, call_id, body, _ = frame
        if kind != _wire.CALL:
            worker.control(frame)
            return
        try:
            text = str(body, "utf-8")
            request, end = _values.scan(text, 0)
            if end != len(text) or request.__class__ is not list:
                raise ValueError("it is no array, or something follows it")  # noqa: TRY301
            name, args, kwargs, options = request if len(request) != 3 else (*request, None)
            function = worker.functions[name]
            call = worker.admit(call_id, timeout_ms, options)
        except Exception as error:
            worker.refuse(call_id, body, error)
            return
        try:
            result = function(*(args or ()), **(kwargs or {}))
        except BaseException as error:
            worker.fail(call, _errors.of_function(function, args, kwargs, error))
        else:
            worker.returned(call, result)

    def _renew(self) -> None:
        """Replace a loop that user code closed."""
        self._loop = _new_loop()
        self._reading = False
        for call in list(self._worker.active.values()):
            if call.items is None:
                error = RuntimeError("the worker's event loop was closed by user code")
                self._worker.fail(call, _errors.of_call(call, error))

    def _fail(self, error: BaseException) -> None:
        """End the worker: there is no going on after this."""
        self._failed = self._failed or error
        self._loop.stop()


class _UnsendableError(Exception):
    """An item of an asynchronous stream has no form on the wire."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__()
        self.body = body


def _new_loop() -> asyncio.AbstractEventLoop:
    """Make a loop; it never becomes the current one outside, where synchronous functions may make their own."""
    import selectors

    loop = asyncio.new_event_loop()
    if type(loop) is not getattr(asyncio, "SelectorEventLoop", None):
        return loop  # another kind, chosen by user code
    select = getattr(selectors.DefaultSelector, "select", None)
    if type(select) is not FunctionType or select.__closure__:
        return loop
    loop.close()
    # A stack that faulthandler writes ends at the first frame of ours: an idle loop then shows no user code.
    code = select.__code__.replace(co_filename=_report.__code__.co_filename)
    ours = FunctionType(code, select.__globals__, "select", select.__defaults__)
    return asyncio.SelectorEventLoop(type("Selector", (selectors.DefaultSelector,), {"select": ours})())


def _report(error: BaseException) -> None:
    try:
        from traceback import print_exception

        print_exception(type(error), error, error.__traceback__, file=sys.stderr)
    except Exception:  # noqa: S110
        pass  # user code closed it
