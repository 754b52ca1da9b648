"""Host calls: `hatchery.call_host` on the main thread, in threads and in asynchronous code.

Only the main thread reads the channel. While it waits for a result, it goes on reading. A thread that waits while user
code keeps the main thread busy sends the main thread the cancel signal, whose handler reads the channel.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed does not know it
import sys
from _thread import allocate_lock, get_ident
from itertools import count
from select import POLLIN, poll
from time import sleep

from hatchery import _calls, _values, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from hatchery._interfaces import Worker
    from hatchery._wire import Encoded

# How often a waiting thread checks whether the main thread runs user code, and so does not read.
_POLL_SECONDS = 0.02
_main = _calls.main


class HostCall:
    """A host call without a result yet, and the code that waits for it."""

    # Defaults that most host calls never change are class attributes: a host call then costs less to create.
    done = False
    abandoned = False
    value: Any = None
    error: Exception | None = None
    lock: Any = None  # of a waiting thread: held until the host call ends
    future: Any = None  # of waiting asynchronous code
    loop: Any = None
    frame: FrameType | None = None  # our frame that waits on the main thread, above user code

    def __init__(self, number: int, name: str, call: _calls.Call) -> None:
        """Create a host call. `number` identifies it, `call` is the call whose code makes it."""
        self.id = number
        self.name = name
        self.call = call
        self.call_id = call.id

    def is_over(self) -> bool:
        """Tell whether it has ended, or its call is cancelled."""
        return self.done or self.call.cancelled

    def complete(self, value: Any, error: Exception | None) -> None:
        """Store the outcome and wake the waiting code. Runs on the main thread."""
        self.value, self.error, self.done = value, error, True
        if self.lock is not None:
            self.lock.release()
        elif self.future is not None:
            worker = _main.worker
            if worker is not None and worker.loop is not None and worker.loop.owns(self.loop):
                self.resolve_future()
                return
            try:
                self.loop.call_soon_threadsafe(self.resolve_future)
            except RuntimeError:
                pass  # user code has closed its loop

    def resolve_future(self) -> None:
        """Pass the outcome to the future, on the thread of its loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
            if self.call.answered:
                self.future.exception()  # keeps asyncio from warning that the exception was never retrieved
        else:
            self.future.set_result(self.value)


class Host:
    """The pending host calls of a worker."""

    def __init__(self, worker: Worker) -> None:
        """Create an empty table; a worker has one."""
        self.worker = worker
        self.pending: dict[int, HostCall] = {}
        self.numbers = count(1)
        names = worker.host_functions
        self.names = None if names is None else {name: _values.encode(name) for name in names}  # encoded once
        worker.get_inbox()

    def deliver(self, frame: _wire.Frame) -> None:
        """Complete the host call that a `host_result` frame is for."""
        _, _, failed, number, body, attachments = frame
        host_call = self.pending.get(number)
        if host_call is None:
            return  # nobody waits for it any more
        value, error = None, None
        try:
            if attachments:
                from hatchery import _attachments

                value = _attachments.scan(body, attachments)
            else:
                value = _values.read(body)
            if failed:
                error = _calls.HostCallError(
                    str(value.get("name", host_call.name)),
                    str(value.get("message", "")),
                    str(value.get("cause", "failed")),
                )
                value = None
        except (RecursionError, MemoryError):
            raise  # user code was near a limit when the signal came: the frame stays pending
        except Exception as problem:
            value = None
            error = _calls.HostCallError(host_call.name, f"its result cannot be read: {problem}", "failed")
        if self.pending.pop(number, None) is not None:
            host_call.complete(value, error)

    def remove(self, host_call: HostCall) -> bool:
        """Remove a host call; False when its result has come."""
        return self.pending.pop(host_call.id, None) is not None

    def wake_thread(self, call: _calls.Call) -> bool:
        """Wake the pool thread that waits on behalf of a cancelled call; False when no thread waits."""
        woken = False
        for host_call in list(self.pending.values()):
            if host_call.call is call and host_call.lock is not None and not host_call.abandoned:
                host_call.abandoned = True
                if self.remove(host_call):
                    host_call.lock.release()
                    woken = True
        return woken

    def wake_loop(self, call: _calls.Call) -> None:
        """Cancel the futures on which event loops in pool threads wait on behalf of a cancelled call."""
        ours = self.worker.loop
        for host_call in list(self.pending.values()):
            if host_call.call is call and host_call.future is not None and not (ours and ours.owns(host_call.loop)):
                try:
                    host_call.loop.call_soon_threadsafe(host_call.future.cancel)
                except RuntimeError:
                    pass  # the loop is closed


def call(name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
    """Implement `hatchery.call_host`, see there."""
    caller, worker = _calls.current_call(), _main.worker
    if worker is None:
        raise RuntimeError(
            "hatchery.call_host(): this process is not a worker of a pool, so there is no host to call; "
            "in a test, replace call_host with a function of your own"
        )
    if caller is None:
        raise RuntimeError("hatchery.call_host(): no call runs here; call the host from the code of a call")
    host: Any = worker.host  # a `Host`; the interface is for other modules
    if host is None:
        host = worker.get_host()
    if type(name) is not str:
        raise TypeError(f"hatchery.call_host(): the name must be a str, not {_values.type_name(type(name))}")
    if host.names is not None and name not in host.names:
        raise _unknown(name, host.names)
    if caller.cancelled or caller.answered:
        raise _calls.HostCallError(name, "the call that asks for it has ended", "cancelled")
    host_call = HostCall(next(host.numbers), name, caller)
    body = _body(host, host_call, args, kwargs)
    asyncio = sys.modules.get("asyncio")
    loop = None if asyncio is None else asyncio._get_running_loop()  # noqa: SLF001
    if loop is not None:
        return _awaitable(host, host_call, body, loop)
    if get_ident() == _main.ident:
        return _wait_on_main(host, host_call, body)
    return _wait_in_thread(host, host_call, body)


def _unknown(name: str, names: dict[str, Any]) -> _calls.HostCallError:
    from hatchery import _functions

    near = _functions.similar(name, names)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return _calls.HostCallError(name, f"the host has no function {name!r}{hint}", "no_such_function")


def _body(host: Host, host_call: HostCall, args: tuple[object, ...], kwargs: dict[str, object]) -> bytes | Encoded:
    try:
        positional = _values.encode(args) if args else b"null"
    except _values.EncodeError as error:
        raise ValueError(f"hatchery.call_host(): {error.about('args')}") from None
    try:
        named = _values.encode(kwargs) if kwargs else b"null"
    except _values.EncodeError as error:
        raise ValueError(f"hatchery.call_host(): {error.about('kwargs')}") from None
    if positional.__class__ is bytes and named.__class__ is bytes:
        name: Any = _values.encode(host_call.name) if host.names is None else host.names[host_call.name]
        return b'[%b,%b,%b,{"call":%d}]' % (name, positional, named, host_call.call_id)
    # Attachments are numbered across the whole body, so it is encoded as one value.
    return _values.encode([host_call.name, args or None, kwargs or None, {"call": host_call.call_id}])


def _outcome(host_call: HostCall) -> Any:
    if host_call.error is None:
        return host_call.value
    try:
        raise host_call.error
    finally:
        host_call.error = None  # breaks a reference cycle with this frame


def _send(host: Host, host_call: HostCall, body: bytes | Encoded) -> None:
    host.pending[host_call.id] = host_call
    try:
        _send_frame(host, _wire.HOST_CALL, host_call.id, body)
    except _wire.FrameTooLargeError as error:
        host.remove(host_call)
        raise ValueError(f"hatchery.call_host(): {error}") from None


def _send_frame(host: Host, kind: int, number: int, body: bytes | Encoded = b"") -> None:
    channel = host.worker.channel
    runner = _calls.runners.get(get_ident())
    if runner is not None:
        runner.send(kind, number, body)
    else:
        _main.send(channel, kind, number, body)


# On the main thread, in synchronous code.


def _wait_on_main(host: Host, host_call: HostCall, body: bytes | Encoded) -> Any:
    main, worker = _main, host.worker
    inbox, channel = worker.get_inbox(), worker.channel
    host_call.frame = sys._getframe()  # noqa: SLF001
    caller = host_call.call
    interruptible, on_main, running = main.interruptible, main.start_marker[1], main.call
    main.interruptible = None  # this function reads the cancel frame itself, and needs no signal
    main.start_marker[1] = 0
    inbox.host_calls.append(host_call)
    try:
        _send(host, host_call, body)
        while True:
            if channel.pending:
                inbox.sort()
            if host_call.is_over() or main.deferred is not None:
                break
            if worker.loop is None and worker.pool is None:
                channel.wait()  # an exception of a user's signal handler is raised here
            if channel.broken is not None or not (worker.loop.wait(host_call) if worker.loop else inbox.read()):
                host.remove(host_call)
                host_call.complete(
                    None, _calls.HostCallError(host_call.name, "the host has closed the connection", "failed")
                )
        if not host_call.done and host.remove(host_call):
            channel.send(_wire.HOST_CANCEL, host_call.id)
    except BaseException as error:
        if not isinstance(error, OSError) and host.remove(host_call):
            channel.send(_wire.HOST_CANCEL, host_call.id)  # a user's signal handler has raised
        raise
    finally:
        host.remove(host_call)
        inbox.host_calls.remove(host_call)
        host_call.frame = None
        if not worker.takes_turns and inbox.queue:  # this worker reads only `pending`
            channel.pending[0:0] = inbox.queue
            inbox.queue.clear()
        main.call = running
        main.start_marker[1] = on_main
        main.interruptible = interruptible
    if main.deferred is not None:
        main.raise_deferred()
    if not host_call.done or (interruptible is not None and caller.cancelled):
        main.interruptible = None
        cancelled = _calls.Cancelled("the call was cancelled")
        cancelled._call_id = caller.id  # noqa: SLF001
        raise cancelled
    if interruptible is not None and main.signal_pending:
        main.drain()
    return _outcome(host_call)


# In threads.


def _wait_in_thread(host: Host, host_call: HostCall, body: bytes | Encoded) -> Any:
    channel = host.worker.channel
    channel.share(_main.ident)
    host_call.lock = allocate_lock()
    host_call.lock.acquire()
    try:
        _send(host, host_call, body)
        while True:
            if host.worker.pool is None:
                _let_main_read(channel, host_call)
            if host_call.lock.acquire(timeout=_POLL_SECONDS):
                break
    except BaseException:
        _abandon(host, host_call)
        raise
    if host_call.abandoned:
        _send_frame(host, _wire.HOST_CANCEL, host_call.id)
        raise _calls.Cancelled("the call was cancelled")
    return _outcome(host_call)


def _abandon(host: Host, host_call: HostCall) -> None:
    """Cancel a host call whose waiting code was interrupted, unless its result has come."""
    if host.remove(host_call) or host_call.abandoned:
        _send_frame(host, _wire.HOST_CANCEL, host_call.id)


def _let_main_read(channel: _wire.Channel, host_call: HostCall) -> None:
    """Interrupt user code on the main thread when there is data to read: that code may wait for this thread."""
    signal = _main.cancel_signal
    readable = poll()
    readable.register(channel.fd, POLLIN)
    pause = 0.0005
    while _main.interruptible is not None and not host_call.done and signal:
        if readable.poll(1000 * _POLL_SECONDS) and _main.interruptible is not None:
            _signal.pthread_kill(_main.ident, signal)
            sleep(pause)
            pause = min(2 * pause, _POLL_SECONDS)
        else:
            pause = 0.0005


# In asynchronous code.


def _awaitable(host: Host, host_call: HostCall, body: bytes | Encoded, loop: Any) -> Any:
    worker = host.worker
    host_call.loop = loop
    host_call.future = future = loop.create_future()
    ours = worker.loop is not None and worker.loop.owns(loop)

    def ended(_: Any) -> None:
        if future.cancelled() and host.remove(host_call) and not host_call.call.answered:
            with _Uninterruptible():
                _send_frame(host, _wire.HOST_CANCEL, host_call.id)

    future.add_done_callback(ended)
    if get_ident() != _main.ident:
        worker.channel.share(_main.ident)
    try:
        _send(host, host_call, body)
    except BaseException:
        _abandon(host, host_call)
        raise
    if not ours and worker.pool is None:
        _poll_channel(host, host_call, loop)
    return future


class _Uninterruptible:
    """Holds back `Cancelled` in callbacks of an event loop, which would only log it."""

    def __enter__(self) -> Any:
        """Return what was interruptible on the main thread; None elsewhere."""
        self.interruptible = _main.interruptible if get_ident() == _main.ident else None
        if self.interruptible is not None:
            _main.interruptible = None
        return self.interruptible

    def __exit__(self, kind: object, *_: object) -> bool:
        if self.interruptible is not None:
            _main.interruptible = self.interruptible
        runner = _calls.runners.get(get_ident())
        return kind is _calls.Cancelled and runner is not None and runner.raise_again()


def _poll_channel(host: Host, host_call: HostCall, loop: Any) -> None:
    """Read the channel repeatedly while an event loop of user code blocks the main thread."""
    if host_call.done or host_call.future.done():
        return
    channel = host.worker.channel
    if get_ident() != _main.ident:
        readable = poll()
        readable.register(channel.fd, POLLIN)
        if _main.interruptible is not None and _main.cancel_signal and readable.poll(0):
            _signal.pthread_kill(_main.ident, _main.cancel_signal)
        loop.call_later(_POLL_SECONDS / 10, _poll_channel, host, host_call, loop)
        return
    with _Uninterruptible() as interruptible:
        if interruptible is not None:
            channel.fetch()
            host.worker.get_inbox().handle_urgent()
        if not host_call.done:
            loop.call_later(_POLL_SECONDS / 10, _poll_channel, host, host_call, loop)
