"""Streams of synchronous iterators: objects with state, between whose steps the main thread serves other frames.

Those of asynchronous iterators are tasks of the event loop, see `_loop`.
"""

from __future__ import annotations

from time import monotonic

from hatchery import _calls, _errors, _values, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hatchery._calls import Call
    from hatchery._serving import Worker

# How long the other tasks of an event loop may wait for a stream that never waits.
SLICE_SECONDS = 0.002
_main = _calls.main


def pump(worker: Worker, call: Call) -> None:
    """Send items until the credit is used up, or it is the event loop's turn."""
    main, send, encode = _main, worker.channel.send, _values.encode
    chunk, call_id = _wire.CHUNK, call.id
    step, run = call.items.__next__, call.own_context().run
    turn_ends = monotonic() + SLICE_SECONDS if worker.in_turns else None
    item = None
    while call.credit:
        main.call = call
        main.begun[1] = call_id
        try:
            try:
                main.armed = True
                if main.poked:
                    main.look()
                item = run(step)
            finally:
                main.armed = None
        except BaseException as error:
            main.call = None
            main.begun[1] = 0
            _stepped_out(worker, call, error)
            return
        main.call = None
        main.begun[1] = 0
        if call.cancelled:
            _close(call)  # it swallowed that
            worker.fail(call, {"kind": "cancelled"})
            return
        try:
            send(chunk, call_id, encode(item))
        except (_values.EncodeError, _wire.FrameTooLargeError) as error:
            _close(call)
            worker.fail(call, _errors.unsendable(error, item, "item"))
            return
        call.credit -= 1
        item = None  # it is the caller's now
        if turn_ends is not None and monotonic() > turn_ends and call.credit:
            worker.the_inbox().resumed.append(call)
            return


def _stepped_out(worker: Worker, call: Call, error: BaseException) -> None:
    if isinstance(error, StopIteration):
        end(worker, call)
    elif call.cancelled and type(error) is _calls.Cancelled:
        drop(worker, call)  # it may have come between two steps; one that has ended just raises it once more
    else:
        worker.fail(call, _errors.of_call(call, error))


def drop(worker: Worker, call: Call) -> None:
    """End a stream between two steps, because nobody wants its items any more."""
    call.cancelled = True
    _main.call = call
    _calls.enter(call.id)
    outcome = thrown(call)
    _main.call = None
    _main.begun[1] = 0
    if outcome is None:
        end(worker, call)
    else:
        worker.fail(call, outcome)


def thrown(call: Call) -> dict[str, object] | None:
    """Raise `Cancelled` in a generator between two steps, and return how that ended it; None for as it likes."""
    items, run = call.items, call.own_context().run
    try:
        if hasattr(items, "throw"):
            run(items.throw, _calls.Cancelled("the call was cancelled"))
            run(items.close)  # it yields all the same
    except StopIteration:
        return None
    except BaseException as error:
        return _errors.of_call(call, error)
    return {"kind": "cancelled"}


def _close(call: Call) -> None:
    """Close a generator whose items cannot be sent; that says why, whatever closing it raises."""
    try:
        close = getattr(call.items, "close", None)
        if close is not None:
            _calls.run(call, close)
    except BaseException:  # noqa: S110
        pass


def end(worker: Worker, call: Call) -> None:
    """Tell that no more items come."""
    worker.finish(call)
    _main.send(worker.channel, _wire.END, call.id)


def no_stream(result: object) -> dict[str, object]:
    """Describe a result that cannot be streamed, to a caller that wanted a stream."""
    name = _values.type_name(type(result))
    article = "an" if name[0] in "aeiou" else "a"
    message = f"result is {article} {name}, not an iterator: call the function without a stream, or write it with yield"
    return {"kind": "encode", "message": message}
