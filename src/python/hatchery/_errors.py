"""Builds the bodies of error frames from exceptions. Must work for any exception, and must not raise."""

from __future__ import annotations

from hatchery import _calls, _functions, _values, _wire
from hatchery._values import type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Callable

MESSAGE_CHARS = 16 * 1024
TRACEBACK_CHARS = 64 * 1024
# Modules whose frames stand before user code in a traceback: ours, the import system, the event loop.
_MACHINERY = ("hatchery.", "importlib.", "_frozen_importlib", "asyncio.base_events")
# What the host asked for: where to look for modules, and the module to import.
user_path: list[str] = []
module = ""
_CAUSES = ("no_such_function", "depth", "failed", "timeout", "cancelled")


def shortened(error: dict[str, Any]) -> dict[str, Any]:
    """Shorten an error to less than `MIN_FRAME_LIMIT_BYTES`, even if each character needs an escape."""
    short = {key: cut(value, 100) if isinstance(value, str) else value for key, value in error.items()}
    if "traceback" in short:
        short["traceback"] = ""
    if "similar" in short:
        short["similar"] = []
    return short


def of_exception(kind: str, error: BaseException) -> dict[str, Any]:
    """Describe an exception of user code: kind, type, message, traceback."""
    try:
        message = str(error)
    except BaseException as second:
        message = f"<its __str__ raised {type(second).__name__}>"
    described = {
        "kind": kind,
        "type": type_name(type(error)),
        "message": cut(message, MESSAGE_CHARS),
        "traceback": cut(traceback_of(error), TRACEBACK_CHARS),
    }
    if issubclass(type(error), ImportError):
        environment = _environment(error)
        if environment:
            described["environment"] = cut(environment, MESSAGE_CHARS)
    return described


def _environment(error: Any) -> str | None:
    try:
        from hatchery._environment import describe

        return describe(error, module, user_path)
    except BaseException:
        return None  # objects in `sys.path` may do anything


def of_function(call: _calls.Call, function: Any, args: Any, kwargs: Any, error: BaseException) -> dict[str, Any]:
    """Describe an exception of a function that was called with these arguments."""
    if issubclass(type(error), TypeError) and isinstance(error, TypeError):
        refused = refused_arguments(function, args or [], kwargs or {}, error)
        if refused is not None:
            return {"kind": "arguments", "message": refused, "signature": _functions.signature(function)}
    return of_call(call, error)


def of_call(call: _calls.Call, error: BaseException) -> dict[str, Any]:
    """Describe the exception that ended a call."""
    kind = type(error)  # runs no code of the exception
    if issubclass(kind, _calls.Cancelled) or (call.cancelled and kind.__name__ == "CancelledError"):
        return {"kind": "cancelled"}
    if issubclass(kind, _calls.HostCallError):
        return of_host_call(error)
    return of_exception("python", error)


def of_host_call(error: BaseException) -> dict[str, Any]:
    """Describe a failed host call whose error the function did not catch."""
    try:
        name, message, cause = error.name, error.message, error.cause  # type: ignore[attr-defined]  # tried
    except BaseException:  # a subclass may lack them
        return of_exception("python", error)
    if type(name) is str and type(message) is str and cause in _CAUSES:
        return {"kind": "host_call", "name": name, "message": cut(message, MESSAGE_CHARS), "cause": cause}
    return of_exception("python", error)


def unsendable(error: Exception, value: Any, what: str = "result") -> dict[str, Any]:
    """Describe why a result or a stream item cannot be sent."""
    if isinstance(error, _wire.FrameTooLargeError):
        return {"kind": "frame_too_large", "size": error.size, "limit": error.limit}
    message = error.about(what) if isinstance(error, _values.EncodeError) else str(error)
    kind = type(value)
    if what == "result" and (hasattr(kind, "__next__") or hasattr(kind, "__anext__")) and "stream" not in message:
        message += "; or let the caller read it as a stream"
    return {"kind": "encode", "message": message}


def traceback_of(error: BaseException) -> str:
    """Format an exception, without the frames before user code."""
    try:
        from traceback import format_exception  # may be a user's file of that name

        return "".join(format_exception(type(error), error, user_frames(error.__traceback__)))
    except BaseException as second:
        return f"{type(error).__name__} (its traceback cannot be formatted: {type(second).__name__})\n"


def user_frames(frames: TracebackType | None) -> TracebackType | None:
    """Drop the frames before user code."""
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__")).startswith(_MACHINERY):
        frames = frames.tb_next
    return frames


def refused_arguments(
    function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], error: TypeError
) -> str | None:
    """Return why the signature does not accept the arguments; None when the function itself raised the TypeError."""
    if user_frames(error.__traceback__) is not None:
        return None
    try:
        from inspect import signature

        bind = signature(function).bind
    except Exception:
        return None
    try:
        bind(*args, **kwargs)
    except TypeError as refused:
        return str(refused)
    return None


def cut(text: str, most: int) -> str:
    """Shorten a text to about `most` characters, keeping both ends."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
