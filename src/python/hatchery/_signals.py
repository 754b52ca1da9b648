"""Signal dispositions of a worker, and a guard around the user's signal handlers. `_worker` installs both.

Python runs a signal handler between any two bytecodes of the main thread, often in our own code: while the worker is
idle, reads a frame or writes an answer. An exception there would lose the frame or end the worker. So every handler
that user code installs is wrapped in a `_Guard`, which checks what the signal interrupted:

| interrupted | an exception of the handler |
|---|---|
| user code | is raised there, as in any Python |
| our code that user code called (`call_host`, `progress`, `logging`) | is raised when it returns to user code |
| anything else | is printed, and the worker continues |
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed does not know it
import os
from time import monotonic

from hatchery import _calls, _errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Callable

_main = _calls.main
# A worker ignores these: a service manager sends them to all processes at once, and the host stops its workers itself.
_HOSTS = (_signal.SIGTERM, _signal.SIGHUP)
# Python ignores these, and resets them to the default in child processes.
_IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ)

# Our functions that call user code and handle any exception from it, as module.function.
_CALL_USER_CODE = {
    "hatchery._calls.run",
    "hatchery._hooks.preload",
    "hatchery._logs.call_handlers",
    "hatchery._logs.handle",
    "hatchery._loop._answer",
    "hatchery._loop._drive",
    "hatchery._loop.main",
    "hatchery._loop._stream",
    "hatchery._serving.start_async",
    "hatchery._signals.__call__",
    "hatchery._streams.throw_cancelled",
    "hatchery._worker._start",
    "hatchery._zygote.load",
}
# The same, but only while `main.interruptible` is set.
_CALL_WHEN_INTERRUPTIBLE = {
    "hatchery._calls.run",
    "hatchery._serving._call",
    "hatchery._serving.serve",
    "hatchery._streams.send_items",
}
# Runs the event loop: callbacks and tasks are user code, the code between them is asyncio's.
_RUNS_LOOP = "hatchery._loop._run_until_left"
# Waits on behalf of user code; an exception there loses nothing.
_WAITS = "hatchery._wire.wait"
# User code calls these. Before they return, they raise what a handler raised meanwhile.
_CALLED_BY_USER_CODE = {
    "hatchery._calls.call_host",
    "hatchery._calls.progress",
    "hatchery._logs.call_handlers",
}
_OURS = "<hatchery>/"
_LIBRARY = os.path.dirname(os.__file__) + "/"

set_handler = _signal.signal  # without a guard
_get = _signal.getsignal
_forking_worker = False


def left_to_host(_number: int, _frame: object) -> None:
    """Ignore the signal: the host stops its workers in order, and its death ends them.

    A function, because child processes would inherit `SIG_IGN`.
    """


def install() -> None:
    """Reset the dispositions to those of a fresh Python, whatever the host ignores, and guard the user's handlers."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    for number in _signal.valid_signals():
        handler = _get(number)
        if handler == _signal.SIG_IGN and number not in _IGNORED_BY_PYTHON:
            set_handler(number, _signal.default_int_handler if number == _signal.SIGINT else _signal.SIG_DFL)
    for number in _HOSTS:
        if _get(number) == _signal.SIG_DFL:
            set_handler(number, left_to_host)
    for number in _signal.valid_signals():
        handler = _get(number)
        if callable(handler) and handler is not left_to_host:
            set_handler(number, _Guard(handler))
    # The module `signal` looks these up at each call.
    _signal.signal, _signal.getsignal = _set_guarded, _get_unguarded
    os.register_at_fork(after_in_child=_forked)


def fork_worker(fork: Callable[[], int]) -> int:
    """Fork a worker. It keeps the dispositions of the template, unlike a child that user code forks."""
    global _forking_worker  # noqa: PLW0603
    _forking_worker = True
    try:
        return fork()
    finally:
        _forking_worker = False


def _forked() -> None:
    """Restore the dispositions of a fresh Python in a child that user code has forked."""
    if _forking_worker:
        return
    _signal.signal, _signal.getsignal = set_handler, _get
    for number in _signal.valid_signals():
        handler = _get(number)
        if handler is left_to_host:
            set_handler(number, _signal.SIG_DFL)
        elif handler.__class__ is _Guard:
            set_handler(number, handler.handler)


def _set_guarded(number: int, handler: Any, /) -> Any:
    guarded = _Guard(handler) if callable(handler) and handler is not left_to_host else handler
    return _unguarded(set_handler(number, guarded))


def _get_unguarded(number: int, /) -> Any:
    return _unguarded(_get(number))


def _unguarded(handler: Any) -> Any:
    return handler.handler if handler.__class__ is _Guard else handler


class _Guard:
    """Wraps a user's handler, so that its exceptions are raised only where user code can handle them."""

    __slots__ = ("handler",)

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        may_raise, is_awaited = _locate(frame)
        if may_raise:
            self.handler(number, frame)
            return
        try:
            self.handler(number, frame)
        except BaseException as error:
            if is_awaited:
                _main.defer(error)
            else:
                _reports.add(number, error)


def _locate(frame: FrameType | None) -> tuple[bool, bool]:
    """Return whether the signal interrupted user code, and if not, whether user code waits for the code that runs."""
    of_others = of_users = False
    is_first, is_awaited = True, False
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_OURS):
            of_others = True
            of_users = of_users or not code.co_filename.startswith((_LIBRARY, "<frozen "))
        else:
            name = f"{frame.f_globals.get('__name__')}.{code.co_name}"
            if is_first and _runs_user_code(name, of_others, of_users):
                return True, False
            is_awaited = is_awaited or name in _CALLED_BY_USER_CODE
            is_first = False
        frame = frame.f_back
    return is_first, is_awaited


def _runs_user_code(name: str, of_others: bool, of_users: bool) -> bool:  # noqa: FBT001
    """Tell whether user code runs above our innermost function."""
    if name == _WAITS or (name in _CALL_WHEN_INTERRUPTIBLE and _main.interruptible is not None):
        return True
    if name == _RUNS_LOOP:
        return of_users
    return of_others and name in _CALL_USER_CODE


class _Reports:
    """Prints exceptions of handlers, at most ten a second: a timer of a millisecond must not stop the worker."""

    MAX_PER_SECOND = 10

    def __init__(self) -> None:
        self.is_busy = False  # another signal may interrupt a report
        self.second = self.printed = self.left_out = 0

    def add(self, number: int, error: BaseException) -> None:
        second = int(monotonic())
        if second != self.second:
            self.second, self.printed = second, 0
        if self.is_busy or self.printed == self.MAX_PER_SECOND:
            self.left_out += 1
            return
        self.is_busy = True
        try:
            self.printed += 1
            left_out, self.left_out = self.left_out, 0
            _print(number, error, left_out)
        finally:
            self.is_busy = False


_reports = _Reports()


def _print(number: int, error: BaseException, left_out: int) -> None:
    try:
        name = _signal.strsignal(number)
    except Exception:
        name = None
    text = f"hatchery: the handler of signal {number} ({name}) raised while no call ran here; the worker serves on"
    if left_out:
        text += f" ({left_out} more were not printed)"
    try:
        os.write(2, f"{text}:\n{_errors.traceback_of(error)}".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # user code closed it
