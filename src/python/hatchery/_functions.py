"""Finds and describes the functions that a module exports. Worker, template and `python -m hatchery` use it.

It avoids the import of `inspect`, 5 ms of a start, where possible.
"""

from __future__ import annotations

import sys
from types import CoroutineType, FunctionType, GeneratorType, GenericAlias, MethodType

from hatchery import _hooks
from hatchery._values import type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType
    from typing import Any, Callable

    Functions = dict[str, Callable[..., Any]]
    # name, kind, default, annotation
    Parameter = tuple[str, str, Any, Any]

_MISSING = object()
_DEFAULT_CHARS = 80  # a default may be a whole table
_HAS_VAR_POSITIONAL = 0x04
_HAS_VAR_KEYWORD = 0x08
_IS_ASYNC = 0x80 | 0x200  # coroutine, asynchronous generator
_IS_AWAITED_GENERATOR = 0x100  # set by `types.coroutine`
_DEEPEST = 20  # nesting of partials and methods


class ExportError(Exception):
    """The module exports no function of a wanted name, or two of the same name."""


def prepare(hello: dict[str, Any]) -> tuple[Functions, list[dict[str, Any]]]:
    """Collect and describe the functions that hello's module exports."""
    functions = exported(sys.modules[hello["module"]], hello["functions"], _hooks.exports)
    return functions, [describe(name, function) for name, function in functions.items()]


def exported(
    module: ModuleType, wanted: list[str] | None, marked: Iterable[tuple[str, Callable[..., Any]]] = ()
) -> Functions:
    """Collect the functions marked with `@export`; else those of `__all__`; else the module's own public functions.

    `wanted` selects some of them. Raises `ExportError` for a wanted name that is not among them.
    """
    functions: Functions = {}
    for name, function in marked:
        if functions.setdefault(name, function) is not function:
            both = f"{_home(functions[name])} and {_home(function)}"
            raise ExportError(
                f"two functions are exported as {name!r}: {both}; give one another name: @export(name=...)"
            )
    names = getattr(module, "__all__", None)
    if functions:
        pass
    elif names is not None:
        for name in names:
            value = getattr(module, name, None)
            if callable(value):
                functions[name] = value
    else:
        for name, value in list(vars(module).items()):
            if name.startswith("_") or isinstance(value, type) or not callable(value):
                continue
            try:
                home = value.__module__
            except Exception:  # noqa: S112
                continue  # an unbound proxy object
            # A function made by `exec`, or compiled, may have no module; one with `__code__` is not a builtin.
            if home == module.__name__ or (home is None and hasattr(value, "__code__")):
                functions[name] = value
    if wanted is None:
        return functions
    for name in wanted:
        if name not in functions:
            why = why_not(module, name)
            near = similar(name, functions)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ExportError(
                f"module {module.__name__!r} exports no function {name!r}{f': {why}' if why else ''}{hint}"
            )
    return {name: functions[name] for name in wanted}


def why_not(module: ModuleType, name: str, wanted: list[str] | None = None) -> str | None:
    """Return why a name of the module cannot be called, and what to do; None when the module has no such name.

    `wanted` is the host's `.functions([...])`.
    """
    try:
        return _why_not(module, name, wanted)
    except Exception:  # a proxy object may do anything
        return None


def _why_not(module: ModuleType, name: str, wanted: list[str] | None) -> str | None:
    members = vars(module)
    if wanted is not None and name in exported(module, None, _hooks.exports):
        return "the pool allows only some functions: add it to `.functions([...])`"
    first, dot, _ = name.partition(".")
    if dot and first in members:
        return "names with a dot are not looked up: write a function in the module"
    if name not in members:
        return None
    value = members[name]
    kind = type_name(type(value))
    if not callable(value):
        return f"it is {'an' if kind[0] in 'aeiou' else 'a'} {kind}, which cannot be called"
    if _hooks.exports:
        return "other functions are marked with @hatchery.export, this one is not: mark it too"
    if hasattr(module, "__all__"):
        return "it is not in the module's __all__: add it there"
    do = "list in __all__ what can be called, or write a function around it"
    if name.startswith("_"):
        return f"a name with a leading underscore is private: rename it, or {do}"
    if isinstance(value, type):
        return f"it is a class: {do}"
    home = getattr(value, "__module__", None)
    if isinstance(home, str) and type(value).__module__ != home:
        return f"it is defined in module {home!r} and only imported here: {do}"
    return f"it is a {kind}, and Python does not tell whether this module defines it: {do}"


def _home(function: Callable[..., Any]) -> str:
    try:
        code = function.__code__
        named: Any = function  # may also be an instance
        return f"{type_name(named)} ({code.co_filename}:{code.co_firstlineno})"
    except Exception:
        return repr(function)


def is_async(function: Any) -> bool:
    """Tell whether a call of the function just returns a coroutine or an asynchronous generator, and runs no code."""
    for _ in range(_DEEPEST):
        kind = type(function)
        if kind is FunctionType:
            return bool(function.__code__.co_flags & _IS_ASYNC)
        if kind is MethodType:
            function = function.__func__
        elif f"{kind.__module__}.{kind.__qualname__}" == "functools.partial":
            function = function.func
        else:
            break
    return False


def is_awaitable(value: Any) -> bool:
    """Tell whether `await` takes a value: a coroutine, a future, a task, or any object with `__await__`."""
    kind = type(value)
    if kind is GeneratorType:
        return bool(value.gi_code.co_flags & _IS_AWAITED_GENERATOR)
    return kind is CoroutineType or hasattr(kind, "__await__")


def discard(awaitable: Any) -> None:
    """Close an awaitable that will not be awaited, so that Python does not warn about it."""
    for name in ("close", "cancel"):  # a coroutine has the first, a future the second
        end = getattr(awaitable, name, None)
        if end is not None:
            end()
            return


def similar(name: str, functions: Functions) -> list[str]:
    """Return up to three exported names similar to `name`, the most similar first."""
    try:
        from difflib import get_close_matches
    except Exception:  # a user's module shadows one of the standard library
        return []
    return get_close_matches(name, functions, n=3)


def describe(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Describe a function for ready; signature and parameters are None when Python cannot tell them."""
    try:
        text = function.__doc__
    except Exception:
        text = None
    lines = text.strip().splitlines() if isinstance(text, str) else None
    facts: dict[str, Any] = {
        "name": name,
        "signature": None,
        "parameters": None,
        "doc": lines[0] if lines else None,
    }
    try:
        parameters, returns = _parameters(function)
    except Exception:
        return facts
    facts["signature"] = _signature(parameters, returns)
    facts["parameters"] = [
        {
            "name": parameter,
            "kind": kind,
            "required": default is _MISSING and not kind.startswith("var_"),
        }
        for parameter, kind, default, _ in parameters
    ]
    return facts


def signature(function: Callable[..., Any]) -> str | None:
    """Return the text of a function's signature, None when Python cannot tell it."""
    try:
        return _signature(*_parameters(function))
    except Exception:
        return None


def _parameters(function: Callable[..., Any]) -> tuple[list[Parameter], Any]:
    """Return a function's parameters and the annotation of its result."""
    marks = getattr(function, "__dict__", {})
    if type(function) is not FunctionType or "__wrapped__" in marks or "__signature__" in marks:
        return _inspected(function)
    code = function.__code__
    try:
        annotations = function.__annotations__
    except Exception:
        annotations = {}  # a lazily evaluated annotation may raise
    defaults = function.__defaults__ or ()
    names = code.co_varnames
    count = code.co_argcount
    parameters: list[Parameter] = []

    def add(name: str, kind: str, default: Any) -> None:
        parameters.append((name, kind, default, annotations.get(name, _MISSING)))

    for index in range(count):
        kind = "positional_only" if index < code.co_posonlyargcount else "positional_or_keyword"
        place = index - (count - len(defaults))
        add(names[index], kind, defaults[place] if place >= 0 else _MISSING)
    after = count + code.co_kwonlyargcount
    if code.co_flags & _HAS_VAR_POSITIONAL:
        add(names[after], "var_positional", _MISSING)
        after += 1
    keyword_defaults = function.__kwdefaults__ or {}
    for index in range(count, count + code.co_kwonlyargcount):
        add(names[index], "keyword_only", keyword_defaults.get(names[index], _MISSING))
    if code.co_flags & _HAS_VAR_KEYWORD:
        add(names[after], "var_keyword", _MISSING)
    return parameters, annotations.get("return", _MISSING)


def _inspected(function: Callable[..., Any]) -> tuple[list[Parameter], Any]:
    import inspect

    def known(value: Any) -> Any:
        return _MISSING if value is inspect.Parameter.empty else value

    found = inspect.signature(function)
    parameters = [
        (one.name, one.kind.name.lower(), known(one.default), known(one.annotation))
        for one in found.parameters.values()
    ]
    return parameters, known(found.return_annotation)


def _signature(parameters: list[Parameter], returns: Any) -> str:
    """Format a signature as `inspect` does."""
    parts = []
    after_positional_only = False
    star_seen = False
    for name, kind, default, annotation in parameters:
        if kind == "positional_only":
            after_positional_only = True
        elif after_positional_only:
            parts.append("/")
            after_positional_only = False
        if kind == "var_positional":
            star_seen = True
        elif kind == "keyword_only" and not star_seen:
            parts.append("*")
            star_seen = True
        stars = {"var_positional": "*", "var_keyword": "**"}.get(kind, "")
        text = stars + name
        if annotation is not _MISSING:
            text += f": {_annotation(annotation)}"
        if default is not _MISSING:
            text += f" = {_default(default)}" if annotation is not _MISSING else f"={_default(default)}"
        parts.append(text)
    if after_positional_only:
        parts.append("/")
    text = f"({', '.join(parts)})"
    return text if returns is _MISSING else f"{text} -> {_annotation(returns)}"


def _annotation(annotation: Any) -> str:
    try:
        if getattr(annotation, "__module__", None) == "typing":
            return repr(annotation).replace("typing.", "")
        if isinstance(annotation, type) and not isinstance(annotation, GenericAlias):
            return type_name(annotation)
        return repr(annotation)
    except Exception:
        return "..."


def _default(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        return "..."
    return text if len(text) <= _DEFAULT_CHARS else text[: _DEFAULT_CHARS - 3] + "..."
