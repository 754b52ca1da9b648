"""The calls in this worker, how one that runs is interrupted, and what user code may ask about its own.

Synchronous user code runs on the main thread, which also reads the channel. While it runs, nobody reads: the host
follows a `cancel` frame with a signal, whose handler reads what has arrived and raises `Cancelled` in user code. The
handler runs between any two bytecodes of the main thread, so everything here is written to be interrupted anywhere:

- `armed` says what the handler may raise in. It is set within the innermost `try` around user code, and unset in that
  `try`'s `finally`, around which there is another `try`: whatever the handler raises, wherever, lands there.
- Between the end of a function and that `finally` the handler does not raise: what was returned would be lost, and of
  a coroutine Python would say that it was never awaited. A function that is not written in Python has no frame; there
  the handler cannot tell, and raises.
- The handler disarms before it raises, so it raises once for each call.
- While a frame is read or written, nothing is armed; `poked` then tells that a signal came, and whoever arms looks.
"""

from __future__ import annotations

from _contextvars import copy_context
from _thread import get_ident
from time import monotonic
from types import FunctionType

from hatchery import _values, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Future, Task
    from contextvars import Context, ContextVar
    from types import FrameType
    from typing import Any, Callable

    from hatchery._attachments import Encoded
    from hatchery._inbox import Inbox
    from hatchery._serving import Worker
    from hatchery._threads import Runner


class Cancelled(BaseException):
    """Raised in a synchronous function, between any two bytecodes, when its call is cancelled.

    It is no `Exception`, so that `except Exception` does not swallow it. Clean up in `finally` or `with`, and let it
    pass. It is raised once for each call: code that swallows it goes on, until the host's grace ends and the worker
    is killed. Asynchronous functions see `asyncio.CancelledError` instead.
    """

    _call_id = 0

    def __init__(self, *args: object) -> None:
        """Note that it has come, where it was raised from another thread."""
        super().__init__(*(args or ("the call was cancelled",)))
        runner = runners.get(get_ident())
        if runner is not None and runner.serves is not None:
            runner.serves.delivered = True


Cancelled.__module__ = "hatchery"


class HostCallError(Exception):
    """A call of the host failed: `name` says which, `message` how, and `cause` of what kind that is.

    Causes are "no_such_function", "depth" (host calls are nested too deep), "failed", "timeout" and "cancelled".
    """

    def __init__(self, name: str, message: str, cause: str) -> None:
        """`name` is the host function's."""
        super().__init__(name, message, cause)
        self.name = name
        self.message = message
        self.cause = cause

    def __str__(self) -> str:
        """Say what failed, and how."""
        return f"the host's {self.name!r}: {self.message}"


HostCallError.__module__ = "hatchery"


class Call:
    """A call that is in this worker."""

    # What most calls never change stands here, which makes them cheap.
    arrived = 0.0
    cancelled = False
    over = False  # answered, or about to be
    session: dict[str, Any] | None = None  # the session's state
    progress = False  # somebody listens
    credit: int | None = None  # how many items may still be sent; None when no stream is wanted
    context: Context | None = None  # in which its synchronous code runs
    items: Any = None  # of a stream: the iterator that the main thread, or the pool's, step through
    async_items: Any = None  # of a stream: the iterator that the task steps through
    task: Task[None] | None = None  # what runs it on the event loop
    entered = False  # the task has come to user code
    waiter: Future[None] | None = None  # what that task waits for when it has no credit
    request_id: str | None = None
    traceparent: str | None = None
    # In a thread of the pool, see `_threads`:
    raising = False  # the main thread is about to raise `Cancelled` in it
    raised = False  # and has done so
    delivered = False  # and user code has seen it
    stepping = False  # of a stream: it is some thread's turn

    def __init__(self, call_id: int, timeout_ms: int, options: dict[str, Any] | None = None) -> None:
        """Begin a call, by its frame. Raises `ValueError` when the options cannot be read."""
        self.id = call_id
        self.timeout_ms = timeout_ms
        if timeout_ms:
            self.arrived = monotonic()
        if options is not None:
            self._take(options)

    def own_context(self) -> Context:
        """Return the context variables of this call, which begin as those of the worker."""
        if self.context is None:
            self.context = base.copy()
        return self.context

    def _take(self, options: dict[str, Any]) -> None:
        if options.__class__ is not dict:
            raise ValueError("its options are no object")
        for name, value in options.items():
            if name == "credit" and value.__class__ is int and value >= 0:
                self.credit = value
            elif name == "progress" and value.__class__ is bool:
                self.progress = value
            elif name in _TEXTS and value.__class__ is str:
                if name != "session":  # which needs more than its name
                    setattr(self, name, value)
            elif name != "depth" or value.__class__ is not int or value < 0:  # it is the host's business
                raise ValueError(f"its option {name!r} is unknown, or cannot be {value!r}")


_TEXTS = ("session", "request_id", "traceparent")
# The worker's name, in the environment of its child processes.
WORKER = "HATCHERY_WORKER"


class MainThread:
    """What the signal handler must know, and what it leaves behind."""

    __slots__ = (
        "_looking",
        "armed",
        "begun",
        "begun_lock",
        "call",
        "cancel_signal",
        "channel",
        "deferred",
        "ident",
        "inbox",
        "poked",
        "worker",
    )

    def __init__(self) -> None:
        """Begin with nothing to interrupt."""
        # What of `call` runs here and may be interrupted: a function, or True for other user code.
        self.armed: Any = None
        self.poked = False  # a signal came and nobody has looked for its frame yet
        self.call: Call | None = None  # whose synchronous code runs here
        self.channel: _wire.Channel | None = None
        self.worker: Worker | None = None
        self.cancel_signal = 0
        self.inbox: Inbox | None = None  # once there may be more to look for than this call's cancel
        # The largest id of a call that has begun, and that of the call whose synchronous code runs here, or 0; shared
        # with the host if it wants to know.
        self.begun: list[int] | memoryview = [0, 0]
        self.begun_lock: Any = None  # there is one when calls begin in threads
        self.ident = get_ident()
        # What a handler of the user's raised while one of our functions ran on behalf of user code, see `_signals`.
        self.deferred: BaseException | None = None
        self._looking = False

    def on_signal(self, _number: int, frame: FrameType | None) -> None:
        """Handle the signal that follows a `cancel` frame."""
        armed, module = self.armed, frame and frame.f_globals.get("__name__")
        has_ended = module == "hatchery._serving" and armed.__class__ is FunctionType  # or is just about to begin
        if armed is None or has_ended or module in _NOT_HERE:
            self.poked = True  # the host repeats the signal until the call is answered
        else:
            self.look()

    def look(self) -> None:
        """Read what has arrived while user code runs; raise `Cancelled` in it if the host cancels this call."""
        call, channel = self.call, self.channel
        if self._looking or call is None or channel is None:
            self.poked = True  # a signal in the middle of a look
            return
        while True:
            self._looking = True
            try:
                self.poked = False
                if not call.cancelled:  # else it was swallowed where Python cannot raise, see `on_unraisable`
                    channel.fetch()
                    for frame in channel.pending:
                        if frame[0] == _wire.CANCEL and frame[3] == call.id:
                            call.cancelled = True
                    if self.inbox is not None:
                        self.inbox.attend()
            except OSError:
                pass  # the next to read or write will say so
            finally:
                self._looking = False
            if call.cancelled:
                self.armed = None
                error = Cancelled("the call was cancelled")
                error._call_id = call.id  # noqa: SLF001
                raise error
            if not self.poked:
                return

    def on_unraisable(self, unraisable: Any) -> bool:
        """Arm again if `Cancelled` was raised where it had to be swallowed: in a `__del__`, a callback of ctypes."""
        error = unraisable.exc_value
        runner = runners.get(get_ident())
        if runner is not None:
            return runner.swallowed(error)
        call = self.call
        if call is None or type(error) is not Cancelled or error._call_id != call.id:  # noqa: SLF001
            return False
        self.armed = True
        return True

    def defer(self, error: BaseException) -> None:
        """Keep what a signal handler of the user's raised until our function returns to user code."""
        self.deferred = error
        if self.worker is not None and self.worker.loop is not None:
            self.worker.loop.interrupt()

    def raise_deferred(self) -> None:
        """Raise what was kept, on the main thread."""
        if get_ident() == self.ident:
            error, self.deferred = self.deferred, None
            if error is not None:
                raise error

    def send(
        self, channel: _wire.Channel, kind: int, call_id: int, body: bytes | Encoded = b"", number: int = 0
    ) -> None:
        """Send a frame where user code may be running below, whose interruption must not cut it."""
        armed = self.armed
        if armed is None or get_ident() != self.ident:
            channel.send(kind, call_id, body, number)
            return
        self.armed = None
        try:
            channel.send(kind, call_id, body, number)
        finally:
            self.armed = armed
        if self.poked:
            self.look()

    def forked(self) -> None:
        """In a forked child: leave the host to the parent."""
        self.armed = None
        self.call = None
        self.deferred = None
        self.begun = [0, 0]
        self.begun_lock = None  # a thread that the child does not have may hold it
        self.inbox = None
        if self.channel is not None:
            self.channel.abandon()


# Interrupted here, Python's import locks could stay locked; and what is raised around a callback, or in one of ours, a
# loop of user code's own would only report.
_NOT_HERE = ("importlib._bootstrap", "_frozen_importlib", "asyncio.events", "hatchery._host")

main = MainThread()
# The context variables that each call begins with: as the module's import and the start hooks have left them.
base: Context = copy_context()
# The call of the running task; there is none before there is an event loop.
of_task: ContextVar[Call] | None = None
# The threads of the pool, by their idents.
runners: dict[int, Runner] = {}


def running() -> Call | None:
    """Return the call whose code asks. Threads of synchronous calls find the one that runs on the main thread."""
    if of_task is not None:
        call = of_task.get(None)
        if call is not None:
            return call
    if runners:
        runner = runners.get(get_ident())
        if runner is not None:
            return runner.serves
    return main.call


def run(call: Call | None, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run user code on this thread, where it can be interrupted when it belongs to a call."""
    main.call = call
    if call is not None:
        enter(call.id)
    try:
        try:
            main.armed = None if call is None else True
            if main.poked:
                main.look()
            if call is None:
                return function(*args, **kwargs)
            return call.own_context().run(function, *args, **kwargs)
        finally:
            main.armed = None
    finally:
        main.call = None
        main.begun[1] = 0


def begins(call_id: int) -> None:
    """Mark that a call has begun, before user code of it runs."""
    if call_id > main.begun[0]:
        lock = main.begun_lock
        if lock is None:
            main.begun[0] = call_id
            return
        with lock:  # another thread may mark a larger one meanwhile
            if call_id > main.begun[0]:  # noqa: PLR1730 - max() costs twice as much
                main.begun[0] = call_id


def enter(call_id: int) -> None:
    """Mark that synchronous user code of a call begins on the main thread."""
    begins(call_id)
    main.begun[1] = call_id


def session() -> dict[str, Any]:
    """Return the dict of the session that this call belongs to.

    It is empty at the session's first call in this worker, and lives until the session ends or the worker does.
    Raises `RuntimeError` when the call belongs to no session, when no call runs here, and in child processes of a
    worker. In any other process, such as a test, it is one dict, the same for all.
    """
    call = running()
    if call is None:
        if main.worker is None:
            return _session_outside()
        raise RuntimeError("hatchery.session(): no call runs here; ask for the session while one does, and pass it on")
    if call.session is None:
        raise RuntimeError(
            "hatchery.session(): this call belongs to no session; the caller chooses one with pool.session(name)"
        )
    return call.session


_outside: dict[str, Any] = {}


def _session_outside() -> dict[str, Any]:
    """Return what stands for a session in a process that is no worker."""
    import os

    worker = os.environ.get(WORKER)
    if worker is not None:
        raise RuntimeError(
            f"hatchery.session(): this is a child process of worker {worker}, which has the session; "
            "pass what the child needs to it, and return what it makes"
        )
    return _outside


def progress(value: object) -> None:
    """Tell the caller how far this call is, with any value that could be a result.

    Does nothing, at little cost, when the caller does not listen, and when no call runs here. Raises `ValueError` for
    a value that cannot be sent.
    """
    call, channel = running(), main.channel
    if call is None or channel is None or not call.progress or call.over:
        return
    try:
        body = _values.encode(value)
        ident = get_ident()
        if ident == main.ident:
            main.send(channel, _wire.PROGRESS, call.id, body)
            return
        runner = runners.get(ident)
        if runner is not None:
            runner.send(_wire.PROGRESS, call.id, body)
            return
        with channel.lock:  # `over` is set under it: after its answer nothing of a call is sent
            if not call.over:
                channel.send(_wire.PROGRESS, call.id, body)
    except _values.EncodeError as error:
        raise ValueError(f"hatchery.progress(): {error.about('value')}") from None
    except _wire.FrameTooLargeError as error:
        raise ValueError(f"hatchery.progress(): {error}") from None
    finally:
        if main.deferred is not None:
            main.raise_deferred()


def cancelled() -> bool:
    """Tell whether this call has been cancelled.

    Useful in threads, in which nothing is raised, and in code that cleans up. False when no call runs here.
    """
    call = running()
    return call is not None and call.cancelled


def deadline() -> float | None:
    """Return the value of `time.monotonic()` at which the caller stops waiting; None when it waits forever."""
    call = running()
    if call is None or not call.timeout_ms:
        return None
    return call.arrived + call.timeout_ms / 1000


_host_call: Callable[..., Any] | None = None


def request_id() -> str | None:
    """Return the id by which the caller names this request in logs; None when it gave none, or no call runs here."""
    call = running()
    return None if call is None else call.request_id


def traceparent() -> str | None:
    """Return the W3C trace context of this call; None when the caller gave none, or no call runs here."""
    call = running()
    return None if call is None else call.traceparent


def call_host(name: str, /, *args: object, **kwargs: object) -> Any:
    """Call a function that the host registered under this name, and return what it returns.

    In asynchronous code it returns an awaitable of that. Raises `HostCallError` when the host says why there is no
    result, `ValueError` for arguments that cannot be sent, and `RuntimeError` when no call runs here.
    """
    global _host_call  # noqa: PLW0603 - an import statement costs more than the rest of this
    function = _host_call
    if function is None:
        from hatchery._host import call

        function = _host_call = call
    try:
        return function(name, args, kwargs)
    finally:
        if main.deferred is not None:
            main.raise_deferred()
