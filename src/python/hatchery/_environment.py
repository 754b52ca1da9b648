"""Explains a failed import: the interpreter, the search path, and a hint. `_errors` imports it when an import fails."""

from __future__ import annotations

import os
import sys

_MAX_PATHS = 12
_VENVS = (".venv", "venv")


def describe(error: ImportError, module: str, user_path: list[str]) -> str:
    """Return lines of `label: text`. The line labelled `hint` says what to do.

    `module` is the module to import, `user_path` what the host gave to `.path()`.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    paths = [str(path) or os.getcwd() for path in sys.path]
    if len(paths) > _MAX_PATHS:
        paths[_MAX_PATHS:] = [f"... {len(paths) - _MAX_PATHS} more"]
    lines = [f"interpreter: {sys.executable} (Python {version})", "search path: " + ", ".join(paths)]
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing:
        lines.append("hint: " + _hint(missing.partition(".")[0], module, user_path).replace("\n", " "))
    return "\n".join(lines)


def _hint(missing: str, module: str, user_path: list[str]) -> str:
    """Return what to do about a missing module."""
    unused = _unused_venv(user_path)
    if missing == module.partition(".")[0]:
        hint = _where_it_looked(missing, user_path)
        return f"{hint}; {unused}" if unused else hint
    return unused or f"install it for this interpreter: `{sys.executable} -m pip install {missing}`"


def _where_it_looked(module: str, user_path: list[str]) -> str:
    here = os.getcwd()
    given = [os.path.abspath(path) for path in user_path]
    for folder in (here, *(os.path.dirname(path) for path in given)):
        if any(os.path.exists(os.path.join(folder, name)) for name in (module + ".py", module)):
            return f"`{module}` is in {folder}: add `.path({_quoted(folder)})`"
    if not given:
        return (
            f"no directory was given: name that of `{module}` with `.path(directory)`; the working directory is {here}"
        )
    looked = [path if os.path.isdir(path) else f"{path} (not a directory)" for path in given]
    return f"`{module}` is not in {', '.join(looked)}: name its directory with `.path(directory)`"


def _unused_venv(user_path: list[str]) -> str | None:
    active = os.environ.get("VIRTUAL_ENV")
    if active:
        if _is_used(active):
            return None
        program = _quoted(os.path.join(active, "bin", "python3"))
        return f"VIRTUAL_ENV is {active}, but this interpreter belongs to another environment: use `.python({program})`"
    folders = [os.getcwd()]
    folders += [os.path.abspath(path) for path in user_path]
    folders += [os.path.dirname(folder) for folder in folders]
    for folder in folders:
        for name in _VENVS:
            venv = os.path.join(folder, name)
            if os.path.isfile(os.path.join(venv, "pyvenv.cfg")) and not _is_used(venv):
                program = _quoted(os.path.join(venv, "bin", "python3"))
                return f"the virtual environment {venv} is not used: activate it, or name it with `.python({program})`"
    return None


def _is_used(venv: str) -> bool:
    return os.path.realpath(venv) == os.path.realpath(sys.prefix)


def _quoted(path: str) -> str:
    return '"' + path + '"'
