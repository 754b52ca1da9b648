"""The calls in this worker, how the running one is cancelled, and the functions by which user code asks about its call.

Every other module of a worker uses this one.

Synchronous user code runs on the main thread, which also reads the channel. While user code runs, nothing is read. So
the host sends a signal after each `cancel` frame. The signal's handler reads the channel and raises `Cancelled` in user
code. A handler runs between any two bytecodes of the main thread. These rules make that safe:

- The handler raises only while `interruptible` is set. It is set inside the innermost `try` around user code and
  cleared in the `finally` of that `try`. A second `try` around both catches an exception raised at any point between.
- The handler does not raise between the return of a function and that `finally`: the result would be lost, and Python
  would warn about a coroutine that was never awaited. A function that is not written in Python has no frame, so the
  handler cannot see that it has returned, and raises.
- The handler clears `interruptible` before it raises, so it raises once for each call.
- `interruptible` is clear while a frame is read or written. A signal that comes then sets `signal_pending`. Code that
  sets `interruptible` checks `signal_pending` next, and calls `drain`.
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

    from hatchery._interfaces import Inbox, Runner, Worker
    from hatchery._wire import Encoded


class Cancelled(BaseException):
    """Raised in a synchronous function, between any two bytecodes, when its call is cancelled.

    It is no `Exception`, so that `except Exception` does not swallow it. Clean up in `finally` or `with`, and let it
    pass. It is raised once for each call: code that swallows it goes on, until the host's grace ends and the worker
    is killed. Asynchronous functions see `asyncio.CancelledError` instead.
    """

    _call_id = 0

    def __init__(self, *args: object) -> None:
        """Mark the call of a pool thread: the exception has reached user code."""
        super().__init__(*(args or ("the call was cancelled",)))
        runner = runners.get(get_ident())
        if runner is not None and runner.call is not None:
            runner.call.delivered = True


Cancelled.__module__ = "hatchery"


class HostCallError(Exception):
    """A host call failed. `name` is the host's function, `message` says what went wrong, `cause` is the kind.

    Causes are "no_such_function", "depth" (host calls are nested too deep), "failed", "timeout" and "cancelled".
    """

    def __init__(self, name: str, message: str, cause: str) -> None:
        """Keep the three parts; `name` is that of the host's function."""
        super().__init__(name, message, cause)
        self.name = name
        self.message = message
        self.cause = cause

    def __str__(self) -> str:
        """Return the name and the message."""
        return f"the host's {self.name!r}: {self.message}"


HostCallError.__module__ = "hatchery"


class Call:
    """A call that this worker has received and not answered."""

    # Defaults that most calls never change are class attributes: a call then costs less to create.
    arrived = 0.0
    cancelled = False
    answered = False  # the answer is sent, or is the next frame of this call
    session: dict[str, Any] | None = None  # the session's state
    progress = False  # the caller listens to progress
    credit: int | None = None  # how many stream items may still be sent; None when the caller wants no stream
    context: Context | None = None  # of its synchronous code
    items: Any = None  # of a stream: the iterator that the main thread, or a pool thread, reads
    async_items: Any = None  # of a stream: the iterator that the task reads
    task: Task[None] | None = None  # runs the call on the event loop
    started = False  # the task, or the pool thread, has begun to run user code
    credit_future: Future[None] | None = None  # the task waits for it when the stream has no credit
    request_id: str | None = None
    traceparent: str | None = None
    # For a call that runs in a pool thread, see `_threads`:
    raising = False  # the main thread is about to raise `Cancelled` in the pool thread
    raised = False  # the main thread has raised it
    delivered = False  # user code has seen it
    stepping = False  # of a stream: a pool thread has, or waits for, its turn

    def __init__(self, call_id: int, timeout_ms: int, options: dict[str, Any] | None = None) -> None:
        """Take the parts of a call frame. Raises `ValueError` when the options are not valid."""
        self.id = call_id
        self.timeout_ms = timeout_ms
        if timeout_ms:
            self.arrived = monotonic()
        if options is not None:
            self._take(options)

    def own_context(self) -> Context:
        """Return the context of this call, at first a copy of the worker's."""
        if self.context is None:
            self.context = base_context.copy()
        return self.context

    def _take(self, options: dict[str, Any]) -> None:
        if options.__class__ is not dict:
            raise ValueError("the options are not an object")
        for name, value in options.items():
            if name == "credit" and value.__class__ is int and value >= 0:
                self.credit = value
            elif name == "progress" and value.__class__ is bool:
                self.progress = value
            elif name in _TEXTS and value.__class__ is str:
                if name != "session":  # the worker looks up the session's state
                    setattr(self, name, value)
            elif name != "depth" or value.__class__ is not int or value < 0:  # only the host uses it
                raise ValueError(f"the option {name!r} is unknown, or its value {value!r} is not valid")


_TEXTS = ("session", "request_id", "traceparent")
# The environment variable that tells child processes the worker's name.
WORKER = "HATCHERY_WORKER"


class MainThread:
    """The state of the main thread, shared with the handler of the cancel signal."""

    __slots__ = (
        "_draining",
        "call",
        "cancel_signal",
        "channel",
        "deferred",
        "ident",
        "inbox",
        "interruptible",
        "signal_pending",
        "start_marker",
        "start_marker_lock",
        "worker",
    )

    def __init__(self) -> None:
        """Begin with no call."""
        # The function of `call` that runs here and may be interrupted, or True for other user code of `call`.
        self.interruptible: Any = None
        self.signal_pending = False  # a signal came, and its frame is not read yet
        self.call: Call | None = None  # the call whose synchronous code runs here
        self.channel: _wire.Channel | None = None
        self.worker: Worker | None = None
        self.cancel_signal = 0
        self.inbox: Inbox | None = None  # when frames other than the cancel of `call` may need the handler
        # The start marker: the largest id of a call that has started, and the id of the call whose synchronous code
        # runs here, or 0. Shared memory when the host asked for it.
        self.start_marker: list[int] | memoryview = [0, 0]
        self.start_marker_lock: Any = None  # only needed when calls start in pool threads
        self.ident = get_ident()
        # Raised by a user's signal handler in one of our functions that user code called, see `_signals`.
        self.deferred: BaseException | None = None
        self._draining = False

    def on_signal(self, _number: int, frame: FrameType | None) -> None:
        """Handle the signal that follows a `cancel` frame."""
        interruptible, module = self.interruptible, frame and frame.f_globals.get("__name__")
        # The function has returned, or is about to be called.
        has_ended = module == "hatchery._serving" and interruptible.__class__ is FunctionType
        if interruptible is None or has_ended or module in _NOT_HERE:
            self.signal_pending = True  # the host repeats the signal until the call is answered
        else:
            self.drain()

    def drain(self) -> None:
        """Read what has arrived while user code runs. Raises `Cancelled` if the host has cancelled this call."""
        call, channel = self.call, self.channel
        if self._draining or call is None or channel is None:
            self.signal_pending = True  # a signal during `drain`
            return
        while True:
            self._draining = True
            try:
                self.signal_pending = False
                if not call.cancelled:  # else user code has swallowed it, see `on_unraisable`
                    channel.fetch()
                    for frame in channel.pending:
                        if frame[0] == _wire.CANCEL and frame[3] == call.id:
                            call.cancelled = True
                    if self.inbox is not None:
                        self.inbox.handle_urgent()
            except OSError:
                pass  # the next read or write reports it
            finally:
                self._draining = False
            if call.cancelled:
                self.interruptible = None
                error = Cancelled("the call was cancelled")
                error._call_id = call.id  # noqa: SLF001
                raise error
            if not self.signal_pending:
                return

    def on_unraisable(self, unraisable: Any) -> bool:
        """Allow another `Cancelled` if Python swallowed one, as it does in `__del__` and in callbacks of ctypes.

        Returns whether the exception was ours.
        """
        error = unraisable.exc_value
        runner = runners.get(get_ident())
        if runner is not None:
            return runner.swallowed(error)
        call = self.call
        if call is None or type(error) is not Cancelled or error._call_id != call.id:  # noqa: SLF001
            return False
        self.interruptible = True
        return True

    def defer(self, error: BaseException) -> None:
        """Keep an exception of a user's signal handler until our function returns to user code."""
        self.deferred = error
        if self.worker is not None and self.worker.loop is not None:
            self.worker.loop.interrupt()

    def raise_deferred(self) -> None:
        """Raise the kept exception, on the main thread only."""
        if get_ident() == self.ident:
            error, self.deferred = self.deferred, None
            if error is not None:
                raise error

    def send(
        self, channel: _wire.Channel, kind: int, call_id: int, body: bytes | Encoded = b"", number: int = 0
    ) -> None:
        """Send a frame, possibly from user code. A cancel is held back until the frame is complete."""
        interruptible = self.interruptible
        if interruptible is None or get_ident() != self.ident:
            channel.send(kind, call_id, body, number)
            return
        self.interruptible = None
        try:
            channel.send(kind, call_id, body, number)
        finally:
            self.interruptible = interruptible
        if self.signal_pending:
            self.drain()

    def forked(self) -> None:
        """Close the channel in a forked child: only the parent serves the host."""
        self.interruptible = None
        self.call = None
        self.deferred = None
        self.start_marker = [0, 0]
        self.start_marker_lock = None  # a thread that does not exist in the child may hold it
        self.inbox = None
        if self.channel is not None:
            self.channel.abandon()


# Modules in which the handler must not raise. In the import system a lock could stay locked. Around callbacks, and in
# ours, an event loop of user code would only log the exception.
_NOT_HERE = ("importlib._bootstrap", "_frozen_importlib", "asyncio.events", "hatchery._host")

main = MainThread()
# The context variables that each call starts with: those left by the module's import and the start hooks.
base_context: Context = copy_context()
# The call of the running task; None before the worker has an event loop.
task_call: ContextVar[Call] | None = None
# The pool threads, by ident.
runners: dict[int, Runner] = {}


def current_call() -> Call | None:
    """Return the call that the calling code belongs to. In threads of user code it is the main thread's call."""
    if task_call is not None:
        call = task_call.get(None)
        if call is not None:
            return call
    if runners:
        runner = runners.get(get_ident())
        if runner is not None:
            return runner.call
    return main.call


def run(call: Call | None, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run user code on the main thread. A `call` can be cancelled meanwhile."""
    main.call = call
    if call is not None:
        mark_running(call.id)
    try:
        try:
            main.interruptible = None if call is None else True
            if main.signal_pending:
                main.drain()
            if call is None:
                return function(*args, **kwargs)
            return call.own_context().run(function, *args, **kwargs)
        finally:
            main.interruptible = None
    finally:
        main.call = None
        main.start_marker[1] = 0


def mark_started(call_id: int) -> None:
    """Record in the start marker that a call starts. Must be called before its user code runs."""
    if call_id > main.start_marker[0]:
        lock = main.start_marker_lock
        if lock is None:
            main.start_marker[0] = call_id
            return
        with lock:  # another thread may have marked a larger id
            if call_id > main.start_marker[0]:  # noqa: PLR1730 - max() costs twice as much
                main.start_marker[0] = call_id


def mark_running(call_id: int) -> None:
    """Record in the start marker that synchronous user code of a call starts on the main thread."""
    mark_started(call_id)
    main.start_marker[1] = call_id


def session() -> dict[str, Any]:
    """Return the dict of the session that this call belongs to.

    It is empty at the session's first call in this worker, and lives until the session ends or the worker does.
    Raises `RuntimeError` when the call belongs to no session, when no call runs here, and in child processes of a
    worker. In any other process, such as a test, it is one dict, the same for all.
    """
    call = current_call()
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
    """Return the session of a process that is not a worker."""
    import os

    worker = os.environ.get(WORKER)
    if worker is not None:
        raise RuntimeError(
            f"hatchery.session(): this is a child process of worker {worker}, and only the worker has the session; "
            "pass the child what it needs, and return its results to the worker"
        )
    return _outside


def progress(value: object) -> None:
    """Tell the caller how far this call is, with any value that could be a result.

    Does nothing, at little cost, when the caller does not listen, and when no call runs here. Raises `ValueError` for
    a value that cannot be sent.
    """
    call, channel = current_call(), main.channel
    if call is None or channel is None or not call.progress or call.answered:
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
        with channel.lock:  # `answered` is set under it: no frame of a call follows its answer
            if not call.answered:
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

    Useful in threads of user code, where `Cancelled` is not raised, and in code that cleans up. False when no call runs
    here.
    """
    call = current_call()
    return call is not None and call.cancelled


def deadline() -> float | None:
    """Return the `time.monotonic()` value, in seconds, at which the caller stops waiting; None if it waits forever."""
    call = current_call()
    if call is None or not call.timeout_ms:
        return None
    return call.arrived + call.timeout_ms / 1000


_host_call: Callable[..., Any] | None = None


def request_id() -> str | None:
    """Return the caller's request id for logs; None when the caller gave none, or no call runs here."""
    call = current_call()
    return None if call is None else call.request_id


def traceparent() -> str | None:
    """Return the W3C trace context of this call; None when the caller gave none, or no call runs here."""
    call = current_call()
    return None if call is None else call.traceparent


def call_host(name: str, /, *args: object, **kwargs: object) -> Any:
    """Call a function that the host registered under this name, and return what it returns.

    In asynchronous code it returns an awaitable of the result. Raises `HostCallError` when the host's function fails,
    `ValueError` for arguments that cannot be sent, and `RuntimeError` when no call runs here.
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
