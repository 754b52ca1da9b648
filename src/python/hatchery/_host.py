"""Calls of the host: `hatchery.call_host`, on the main thread, in threads and in asynchronous code.

Only the main thread reads the channel. Where it waits for a result itself, it goes on reading; a thread that waits
while user code keeps the main thread busy interrupts that by the signal that also follows a `cancel`.
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

    from hatchery._attachments import Encoded
    from hatchery._serving import Worker

# How often a thread looks whether the main one is busy, which then does not read.
_LOOK_SECONDS = 0.02
_main = _calls.main


class Waiter:
    """Somebody who waits for a result of the host's."""

    # What most never change stands here, which makes them cheap.
    done = False
    given_up = False
    value: Any = None
    error: Exception | None = None
    lock: Any = None  # of a thread that waits: held until there is something
    future: Any = None  # of asynchronous code
    loop: Any = None
    frame: FrameType | None = None  # of ours, above user code that waits on the main thread

    def __init__(self, number: int, name: str, call: _calls.Call) -> None:
        """Begin with nothing; `number` is that of the host call."""
        self.id = number
        self.name = name
        self.call = call
        self.call_id = call.id

    def is_over(self) -> bool:
        """Tell whether there is nothing to wait for any more."""
        return self.done or self.call.cancelled

    def end(self, value: Any, error: Exception | None) -> None:
        """Hand on what came, on the main thread."""
        self.value, self.error, self.done = value, error, True
        if self.lock is not None:
            self.lock.release()
        elif self.future is not None:
            worker = _main.worker
            if worker is not None and worker.loop is not None and worker.loop.is_ours(self.loop):
                self.settle()
                return
            try:
                self.loop.call_soon_threadsafe(self.settle)
            except RuntimeError:
                pass  # user code closed its loop

    def settle(self) -> None:
        """Let the future have it, on the thread of its loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
            if self.call.over:
                self.future.exception()  # nobody may be left to ask for it, which asyncio would complain about
        else:
            self.future.set_result(self.value)


class Host:
    """The host calls that have not been answered."""

    def __init__(self, worker: Worker) -> None:
        """There is one for a worker."""
        self.worker = worker
        self.waiters: dict[int, Waiter] = {}
        self.numbers = count(1)
        names = worker.host_functions
        self.names = None if names is None else {name: _values.encode(name) for name in names}  # as they travel
        worker.the_inbox()

    def deliver(self, frame: _wire.Frame) -> None:
        """Take a `host_result`."""
        _, _, failed, number, body, attachments = frame
        waiter = self.waiters.get(number)
        if waiter is None:
            return  # it was given up
        value, error = None, None
        try:
            if attachments:
                from hatchery import _attachments

                value = _attachments.scan(body, attachments)
            else:
                value = _values.read(body)
            if failed:
                error = _calls.HostCallError(
                    str(value.get("name", waiter.name)),
                    str(value.get("message", "")),
                    str(value.get("cause", "failed")),
                )
                value = None
        except (RecursionError, MemoryError):
            raise  # of user code that a signal interrupted: the next look will do
        except Exception as problem:
            value = None
            error = _calls.HostCallError(waiter.name, f"its result cannot be read: {problem}", "failed")
        if self.waiters.pop(number, None) is not None:
            waiter.end(value, error)

    def forget(self, waiter: Waiter) -> bool:
        """Give up one; False when its result has come."""
        return self.waiters.pop(waiter.id, None) is not None

    def wake(self, call: _calls.Call) -> bool:
        """Let the pool's thread go on that waits on behalf of a cancelled call; False when none does."""
        woken = False
        for waiter in list(self.waiters.values()):
            if waiter.call is call and waiter.lock is not None and not waiter.given_up:
                waiter.given_up = True
                if self.forget(waiter):
                    waiter.lock.release()
                    woken = True
        return woken

    def nudge(self, call: _calls.Call) -> None:
        """Let a loop of user code's own go on that waits in a thread on behalf of a cancelled call."""
        ours = self.worker.loop
        for waiter in list(self.waiters.values()):
            if waiter.call is call and waiter.future is not None and not (ours and ours.is_ours(waiter.loop)):
                try:
                    waiter.loop.call_soon_threadsafe(waiter.future.cancel)
                except RuntimeError:
                    pass  # it is closed


def call(name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
    """Do what `hatchery.call_host` says."""
    serves, worker = _calls.running(), _main.worker
    if worker is None:
        raise RuntimeError(
            "hatchery.call_host(): this process is no worker of a pool, so there is no host to call; "
            "in a test, put a function of your own in its place"
        )
    if serves is None:
        raise RuntimeError("hatchery.call_host(): no call runs here; the host is called on behalf of a call")
    host = worker.host
    if host is None:
        host = worker.the_host()
    if type(name) is not str:
        raise TypeError(f"hatchery.call_host(): the name must be a str, not {_values.type_name(type(name))}")
    if host.names is not None and name not in host.names:
        raise _unknown(name, host.names)
    if serves.cancelled or serves.over:
        raise _calls.HostCallError(name, "the call on whose behalf it would be is over", "cancelled")
    waiter = Waiter(next(host.numbers), name, serves)
    body = _body(host, waiter, args, kwargs)
    asyncio = sys.modules.get("asyncio")
    loop = None if asyncio is None else asyncio._get_running_loop()  # noqa: SLF001
    if loop is not None:
        return _awaitable(host, waiter, body, loop)
    if get_ident() == _main.ident:
        return _wait_on_main(host, waiter, body)
    return _wait_in_thread(host, waiter, body)


def _unknown(name: str, names: dict[str, Any]) -> _calls.HostCallError:
    from hatchery import _functions

    near = _functions.similar(name, names)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return _calls.HostCallError(name, f"the host has no function {name!r}{hint}", "no_such_function")


def _body(host: Host, waiter: Waiter, args: tuple[object, ...], kwargs: dict[str, object]) -> bytes | Encoded:
    try:
        positional = _values.encode(args) if args else b"null"
    except _values.EncodeError as error:
        raise ValueError(f"hatchery.call_host(): {error.about('args')}") from None
    try:
        named = _values.encode(kwargs) if kwargs else b"null"
    except _values.EncodeError as error:
        raise ValueError(f"hatchery.call_host(): {error.about('kwargs')}") from None
    if positional.__class__ is bytes and named.__class__ is bytes:
        name: Any = _values.encode(waiter.name) if host.names is None else host.names[waiter.name]
        return b'[%b,%b,%b,{"call":%d}]' % (name, positional, named, waiter.call_id)
    # Bytes are numbered over the whole of it.
    return _values.encode([waiter.name, args or None, kwargs or None, {"call": waiter.call_id}])


def _outcome(waiter: Waiter) -> Any:
    if waiter.error is None:
        return waiter.value
    try:
        raise waiter.error
    finally:
        waiter.error = None  # it knows this frame


def _send(host: Host, waiter: Waiter, body: bytes | Encoded) -> None:
    host.waiters[waiter.id] = waiter
    try:
        _send_frame(host, _wire.HOST_CALL, waiter.id, body)
    except _wire.FrameTooLargeError as error:
        host.forget(waiter)
        raise ValueError(f"hatchery.call_host(): {error}") from None


def _send_frame(host: Host, kind: int, number: int, body: bytes | Encoded = b"") -> None:
    channel = host.worker.channel
    runner = _calls.runners.get(get_ident())
    if runner is not None:
        runner.send(kind, number, body)
    else:
        _main.send(channel, kind, number, body)


# On the main thread, in synchronous code.


def _wait_on_main(host: Host, waiter: Waiter, body: bytes | Encoded) -> Any:
    main, worker = _main, host.worker
    inbox, channel = worker.the_inbox(), worker.channel
    waiter.frame = sys._getframe()  # noqa: SLF001
    serves = waiter.call
    armed, on_main, running = main.armed, main.begun[1], main.call
    main.armed = None  # the frame that cancels this call is read here, and needs no signal
    main.begun[1] = 0
    inbox.waits.append(waiter)
    try:
        _send(host, waiter, body)
        while True:
            if channel.pending:
                inbox.sort()
            if waiter.is_over() or main.deferred is not None:
                break
            if worker.loop is None and worker.pool is None:
                channel.wait()  # which a signal handler of the user's can interrupt
            if channel.broken is not None or not (worker.loop.wait(waiter) if worker.loop else inbox.read()):
                host.forget(waiter)
                waiter.end(None, _calls.HostCallError(waiter.name, "the host has gone away", "failed"))
        if not waiter.done and host.forget(waiter):
            channel.send(_wire.HOST_CANCEL, waiter.id)
    except BaseException as error:
        if not isinstance(error, OSError) and host.forget(waiter):
            channel.send(_wire.HOST_CANCEL, waiter.id)  # a signal handler of the user's raised
        raise
    finally:
        host.forget(waiter)
        inbox.waits.remove(waiter)
        waiter.frame = None
        if not worker.in_turns and inbox.queue:  # nobody else would look there
            channel.pending[0:0] = inbox.queue
            inbox.queue.clear()
        main.call = running
        main.begun[1] = on_main
        main.armed = armed
    if main.deferred is not None:
        main.raise_deferred()
    if not waiter.done or (armed is not None and serves.cancelled):
        main.armed = None
        cancelled = _calls.Cancelled("the call was cancelled")
        cancelled._call_id = serves.id  # noqa: SLF001
        raise cancelled
    if armed is not None and main.poked:
        main.look()
    return _outcome(waiter)


# In threads.


def _wait_in_thread(host: Host, waiter: Waiter, body: bytes | Encoded) -> Any:
    channel = host.worker.channel
    channel.share(_main.ident)
    waiter.lock = allocate_lock()
    waiter.lock.acquire()
    try:
        _send(host, waiter, body)
        while True:
            if host.worker.pool is None:
                _let_main_read(channel, waiter)
            if waiter.lock.acquire(timeout=_LOOK_SECONDS):
                break
    except BaseException:
        _give_up(host, waiter)
        raise
    if waiter.given_up:
        _send_frame(host, _wire.HOST_CANCEL, waiter.id)
        raise _calls.Cancelled("the call was cancelled")
    return _outcome(waiter)


def _give_up(host: Host, waiter: Waiter) -> None:
    """Tell the host that nobody waits any more: what was raised may have come after the frame was sent."""
    if host.forget(waiter) or waiter.given_up:
        _send_frame(host, _wire.HOST_CANCEL, waiter.id)


def _let_main_read(channel: _wire.Channel, waiter: Waiter) -> None:
    """Interrupt user code on the main thread when there is something to read; it may wait for this very thread."""
    signal = _main.cancel_signal
    readable = poll()
    readable.register(channel.fd, POLLIN)
    pause = 0.0005
    while _main.armed is not None and not waiter.done and signal:
        if readable.poll(1000 * _LOOK_SECONDS) and _main.armed is not None:
            _signal.pthread_kill(_main.ident, signal)
            sleep(pause)
            pause = min(2 * pause, _LOOK_SECONDS)
        else:
            pause = 0.0005


# In asynchronous code.


def _awaitable(host: Host, waiter: Waiter, body: bytes | Encoded, loop: Any) -> Any:
    worker = host.worker
    waiter.loop = loop
    waiter.future = future = loop.create_future()
    ours = worker.loop is not None and worker.loop.is_ours(loop)

    def ended(_: Any) -> None:
        if future.cancelled() and host.forget(waiter) and not waiter.call.over:
            with _unarmed():
                _send_frame(host, _wire.HOST_CANCEL, waiter.id)

    future.add_done_callback(ended)
    if get_ident() != _main.ident:
        worker.channel.share(_main.ident)
    try:
        _send(host, waiter, body)
    except BaseException:
        _give_up(host, waiter)
        raise
    if not ours and worker.pool is None:
        _look(host, waiter, loop)
    return future


class _unarmed:  # noqa: N801
    """Within what a loop calls back: it would only report what is raised there because the call is cancelled."""

    def __enter__(self) -> Any:
        """Return what was armed, on the main thread."""
        self.armed = _main.armed if get_ident() == _main.ident else None
        if self.armed is not None:
            _main.armed = None
        return self.armed

    def __exit__(self, kind: object, *_: object) -> bool:
        if self.armed is not None:
            _main.armed = self.armed
        runner = _calls.runners.get(get_ident())
        return kind is _calls.Cancelled and runner is not None and runner.raise_again()


def _look(host: Host, waiter: Waiter, loop: Any) -> None:
    """Read for a loop of user code's own, under which nobody else does."""
    if waiter.done or waiter.future.done():
        return
    channel = host.worker.channel
    if get_ident() != _main.ident:
        readable = poll()
        readable.register(channel.fd, POLLIN)
        if _main.armed is not None and _main.cancel_signal and readable.poll(0):
            _signal.pthread_kill(_main.ident, _main.cancel_signal)
        loop.call_later(_LOOK_SECONDS / 10, _look, host, waiter, loop)
        return
    with _unarmed() as armed:
        if armed is not None:
            channel.fetch()
            host.worker.the_inbox().attend()
        if not waiter.done:
            loop.call_later(_LOOK_SECONDS / 10, _look, host, waiter, loop)
