"""Stack dumps of calls that no thread runs: those that wait on the event loop, and streams between two items.

`_serving`, `_threads` and `_inbox` import it when the host asks for the stack of a call.
"""

from __future__ import annotations

import gc
import linecache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from hatchery._calls import Call

_MAX_FRAMES = 100
_OURS = "<hatchery>/"
# For coroutines, generators and asynchronous generators: the attributes for their frame and for what they wait for.
_SUSPENDED = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


def of_call(call: Call) -> str | None:
    """Return the stack of a suspended call, outermost frame first; None when the call has none."""
    if call.items is not None:
        frames = _frames(call.items)
    elif call.credit_future is not None and call.async_items is not None:
        frames = _frames(call.async_items)
    elif call.task is not None:
        frames = _frames(call.task)
    else:
        return None
    return "".join(map(_line, frames)) or None


def of_frame(frame: FrameType | None) -> str | None:
    """Return the stack of running user code; `frame` is the innermost frame, possibly of our own."""
    frames: list[FrameType] = []
    while frame is not None and len(frames) < _MAX_FRAMES:
        if not frame.f_code.co_filename.startswith(_OURS):
            frames.append(frame)
        elif frames:
            break  # our function that called user code
        frame = frame.f_back
    return "".join(map(_line, reversed(frames))) or None


def _line(frame: FrameType) -> str:
    path, number = frame.f_code.co_filename, frame.f_lineno
    text = f'  File "{path}", line {number}, in {frame.f_code.co_name}\n'
    source = linecache.getline(path, number, frame.f_globals).strip()
    return f"{text}    {source}\n" if source else text


def _frames(suspended: Any) -> list[FrameType]:
    """Return the frames of a suspended object, and of all objects that it waits for in turn."""
    frames: list[FrameType] = []
    seen: set[int] = set()
    last: FrameType | None = None
    while suspended is not None and id(suspended) not in seen and len(seen) < 10 * _MAX_FRAMES:
        seen.add(id(suspended))
        for frame_name, next_name in _SUSPENDED:
            if hasattr(suspended, frame_name):
                frame = getattr(suspended, frame_name)
                if frame is not None:
                    last = frame
                    if not frame.f_code.co_filename.startswith(_OURS) and len(frames) < _MAX_FRAMES:
                        frames.append(frame)
                suspended = getattr(suspended, next_name)
                break
        else:
            suspended = _behind(suspended, last, seen)
    return frames


def _behind(waited: Any, last: FrameType | None, seen: set[int]) -> Any:
    """Return what an object waits for that has none of the attributes of `_SUSPENDED`."""
    if hasattr(waited, "get_coro"):
        return waited.get_coro()
    if hasattr(waited, "add_done_callback"):
        return _task_behind(waited, last, seen)
    # An iterator of a future, a step of an asynchronous generator and a coroutine's wrapper refer to that object.
    for held in gc.get_referents(waited):
        if id(held) not in seen and (hasattr(held, "add_done_callback") or _is_suspended(held)):
            return held
    return None


def _is_suspended(thing: Any) -> bool:
    return any(hasattr(thing, name) for name, _ in _SUSPENDED)


def _task_behind(future: Any, last: FrameType | None, seen: set[int]) -> Any:
    """Find the task behind a future of gather, shield, wait, wait_for, or a task group."""
    candidates = list(getattr(future, "_children", ()))
    for callback in getattr(future, "_callbacks", None) or ():
        function = callback[0] if isinstance(callback, tuple) else callback
        for cell in getattr(function, "__closure__", None) or ():
            try:
                candidates.append(cell.cell_contents)
            except ValueError:
                continue  # the cell is empty
    if last is not None and str(last.f_globals.get("__name__")).startswith("asyncio."):
        for value in list(last.f_locals.values()):
            candidates.append(value)
            candidates.extend(_members(value))
            candidates.extend(_members(getattr(value, "_tasks", None)))
    for candidate in candidates:
        if id(candidate) not in seen and hasattr(candidate, "get_coro") and not candidate.done():
            return candidate
    return None


def _members(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, set, tuple)) else []
