"""Streams of synchronous iterators, read on the main thread. `_threads` reads them in pool threads, see there.

The main thread serves other frames between two items. Streams of asynchronous iterators are tasks, see `_loop`.
"""

from __future__ import annotations

from time import monotonic

from hatchery import _calls, _errors, _values, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hatchery._calls import Call
    from hatchery._interfaces import Worker

# A stream that always has an item ready gives up its turn after this time.
SLICE_SECONDS = 0.002
_main = _calls.main


def send_items(worker: Worker, call: Call) -> None:
    """Send items until the credit is used up or the turn is over."""
    main, send, encode = _main, worker.channel.send, _values.encode
    chunk, call_id = _wire.CHUNK, call.id
    step, run = call.items.__next__, call.own_context().run
    turn_ends = monotonic() + SLICE_SECONDS if worker.takes_turns else None
    item = None
    while call.credit:
        main.call = call
        main.start_marker[1] = call_id
        try:
            try:
                main.interruptible = True
                if main.signal_pending:
                    main.drain()
                item = run(step)
            finally:
                main.interruptible = None
        except BaseException as error:
            main.call = None
            main.start_marker[1] = 0
            _handle_step_error(worker, call, error)
            return
        main.call = None
        main.start_marker[1] = 0
        if call.cancelled:
            _close(call)  # the iterator has swallowed the cancel
            worker.fail(call, {"kind": "cancelled"})
            return
        try:
            send(chunk, call_id, encode(item))
        except (_values.EncodeError, _wire.FrameTooLargeError) as error:
            _close(call)
            worker.fail(call, _errors.unsendable(error, item, "item"))
            return
        call.credit -= 1
        item = None  # keeps no item alive while the iterator makes the next one
        if turn_ends is not None and monotonic() > turn_ends and call.credit:
            worker.get_inbox().resumed.append(call)
            return


def _handle_step_error(worker: Worker, call: Call, error: BaseException) -> None:
    if isinstance(error, StopIteration):
        end(worker, call)
    elif call.cancelled and type(error) is _calls.Cancelled:
        cancel(
            worker, call
        )  # the cancel may have come between two items; an iterator that has ended does not run again
    else:
        worker.fail(call, _errors.of_call(call, error))


def cancel(worker: Worker, call: Call) -> None:
    """End a stream between two items, because its call is cancelled."""
    call.cancelled = True
    _main.call = call
    _calls.mark_running(call.id)
    outcome = throw_cancelled(call)
    _main.call = None
    _main.start_marker[1] = 0
    if outcome is None:
        end(worker, call)
    else:
        worker.fail(call, outcome)


def throw_cancelled(call: Call) -> dict[str, object] | None:
    """Raise `Cancelled` in a generator between two items. Returns the error; None if the generator just returned."""
    items, run = call.items, call.own_context().run
    try:
        if hasattr(items, "throw"):
            run(items.throw, _calls.Cancelled("the call was cancelled"))
            run(items.close)  # the generator has swallowed `Cancelled` and yielded an item
    except StopIteration:
        return None
    except BaseException as error:
        return _errors.of_call(call, error)
    return {"kind": "cancelled"}


def _close(call: Call) -> None:
    """Close a generator that is given up, and ignore what it raises: the call has its error already."""
    try:
        close = getattr(call.items, "close", None)
        if close is not None:
            _calls.run(call, close)
    except BaseException:  # noqa: S110
        pass


def end(worker: Worker, call: Call) -> None:
    """Send the end of a stream."""
    worker.finish(call)
    _main.send(worker.channel, _wire.END, call.id)


def not_iterable(result: object) -> dict[str, object]:
    """Return the error for a function that was called for a stream but returned no iterator."""
    name = _values.type_name(type(result))
    article = "an" if name[0] in "aeiou" else "a"
    message = f"result is {article} {name}, not an iterator: call the function without a stream, or write it with yield"
    return {"kind": "encode", "message": message}
