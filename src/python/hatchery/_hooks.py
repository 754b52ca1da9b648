"""The decorators of user modules: `@export` and the hooks. `_worker` and `_zygote` run the hooks."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, TypeVar, overload

    Function = TypeVar("Function", bound=Callable[..., Any])

exports: list[tuple[str, Callable[..., Any]]] = []
preload_hooks: list[Callable[[], Any]] = []
start_hooks: list[Callable[[], Any]] = []
stop_hooks: list[Callable[[], Any]] = []
session_end_hooks: list[Callable[[str, dict[str, Any]], Any]] = []
started = False

_ASYNC = 0x80 | 0x200  # co_flags of coroutines and asynchronous generators


if TYPE_CHECKING:

    @overload
    def export(function: Function, *, name: str | None = None) -> Function: ...

    @overload
    def export(*, name: str) -> Callable[[Function], Function]: ...


def export(function: Any = None, *, name: str | None = None) -> Any:
    """Let the host call a function: `@export`, or `@export(name="other")` to export it under another name.

    If any function is marked, the host can call the marked functions only, whatever module they are in. `__all__` and
    the rule for public functions then do not apply.
    """
    if function is None:
        return lambda function: export(function, name=name)
    if not callable(function):
        raise TypeError(f"@hatchery.export must mark a function, not {function!r}")
    if name is None:
        name = getattr(function, "__name__", None)
    if not isinstance(name, str):
        raise TypeError(f"@hatchery.export: {function!r} has no name; give it one: @export(name=...)")
    exports.append((name, function))
    return function


def on_preload(function: Function) -> Function:
    """Run this function once after the import, before any `on_start` hook.

    In a pool with a zygote it runs in the template: what it loads is shared by all workers. It must not start threads,
    open connections, or be `async`.
    """
    if getattr(getattr(function, "__code__", None), "co_flags", 0) & _ASYNC:
        raise TypeError("an on_preload hook cannot be async: an event loop does not survive a fork")
    return _hook(preload_hooks, function)


def preload() -> None:
    """Run the preload hooks, each once, in the order in which they were marked."""
    while preload_hooks:
        preload_hooks.pop(0)()


def on_start(function: Function) -> Function:
    """Run this function, `async` or not, after the import and before the worker takes calls.

    Several run in the order in which they were marked. If one raises, the worker does not start.
    """
    if started:
        raise RuntimeError(
            "@hatchery.on_start: this worker has started already; mark the hook while the module is imported"
        )
    return _hook(start_hooks, function)


def on_stop(function: Function) -> Function:
    """Run this function, `async` or not, when the worker stops in an orderly way.

    Several run in reverse order. All of them run, even if one raises.
    """
    return _hook(stop_hooks, function)


def on_session_end(function: Function) -> Function:
    """Run this function, `async` or not, when a session ends: `function(name, state)`.

    `state` is the session's dict, which is dropped afterwards. All hooks run, even if one raises.
    """
    return _hook(session_end_hooks, function)


def _hook(hooks: list[Any], function: Function) -> Function:
    if not callable(function):
        raise TypeError(f"a hook must be a function, not {function!r}")
    hooks.append(function)
    return function
