"""Runs a function of a module without a pool: `python -m hatchery call MODULE FUNCTION [ARGUMENT ...]`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from threading import RLock
from time import monotonic

from hatchery import _calls, _functions, _hooks, _values, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EXAMPLE = """\
Each argument is JSON, so a string needs quotes of its own. NAME=JSON is a keyword argument.

  python -m hatchery call shop price '"pen"' currency='"EUR"'

The result is printed as JSON, a stream as one item per line. Progress and tracebacks go to standard error.
Exit codes: 0 for success, 1 when the function raises or its result cannot be sent, 2 when it cannot be called.
"""


def main() -> int:
    """Run the command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hatchery", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="call")
    call = commands.add_parser(
        "call",
        help="call a function as a pool would",
        description="Call a function of a module as a pool would, with the module's hooks.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    call.add_argument(
        "--path", action="append", default=[], metavar="DIR", help="a folder with modules, like `.path()`"
    )
    call.add_argument("--session", metavar="NAME", help="call within a session, whose dict is empty")
    call.add_argument("--timeout", type=float, metavar="SECONDS", help="sets `hatchery.deadline()`")
    call.add_argument("module", metavar="MODULE")
    call.add_argument("function", metavar="FUNCTION")
    call.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="JSON, or NAME=JSON")
    options = parser.parse_args()
    try:
        args, kwargs = _arguments(options.arguments)
    except ValueError as error:
        parser.error(str(error))
    sys.path[0:0] = options.path
    module = importlib.import_module(options.module)
    try:
        function = _functions.exported(module, [options.function], _hooks.exports)[options.function]
    except _functions.ExportError as error:
        print(error, file=sys.stderr)
        return 2
    return _Runner(options.session, options.timeout).run(function, args, kwargs)


def _arguments(texts: list[str]) -> tuple[list[Any], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for text in texts:
        name, is_named, value = text.partition("=")
        named = bool(is_named) and name.isidentifier()
        try:
            decoded = json.loads(value if named else text)
        except ValueError as error:
            raise ValueError(f"{text} is not JSON ({error}); write a string with quotes, as '\"pen\"'") from None
        if named:
            kwargs[name] = decoded
        else:
            args.append(decoded)
    return args, kwargs


class _Terminal:
    """Stands in for the host's channel, and prints progress."""

    def __init__(self) -> None:
        self.lock = RLock()

    def send(self, kind: int, _call_id: int, body: Any = b"", _number: int = 0) -> None:
        if kind == _wire.PROGRESS:
            print("progress:", _text(body), file=sys.stderr)


class _Runner:
    """Runs the hooks and one call on this thread, awaitables on one event loop."""

    def __init__(self, session: str | None, timeout: float | None) -> None:
        self.call = _calls.Call(1, int(1000 * timeout) if timeout else 0)
        self.call.arrived = monotonic()
        self.call.progress = True
        self.session = session
        if session is not None:
            self.call.session = {}
        self.loop: Any = None
        _calls.main.channel = _Terminal()  # type: ignore[assignment]  # it stands in for a channel

    def run(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> int:
        _hooks.preload()
        for hook in _hooks.start_hooks:
            self.finish(hook())
        _hooks.started = True
        try:
            return self.serve(function, args, kwargs)
        finally:
            if self.session is not None and self.call.session is not None:
                for at_end in _hooks.session_end_hooks:
                    self.finish(at_end(self.session, self.call.session))
            for hook in reversed(_hooks.stop_hooks):
                self.finish(hook())
            if self.loop is not None:
                self.loop.close()

    def serve(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> int:
        try:
            _calls.run(self.call, lambda: self.print(self.finish(function(*args, **kwargs))))
        except _values.EncodeError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 1
        except Exception:
            from traceback import print_exception

            kind, raised, frames = sys.exc_info()
            print_exception(kind, raised, _user_frames(frames))
            return 1
        return 0

    def print(self, result: Any) -> None:
        if hasattr(type(result), "__anext__"):
            while True:
                try:
                    item = self.finish(result.__anext__())
                except StopAsyncIteration:
                    return
                self.print_one(item)
        elif hasattr(type(result), "__next__"):
            for item in result:
                self.print_one(item)
        else:
            self.print_one(result)

    def print_one(self, value: Any) -> None:
        print(_text(_values.encode(value)), flush=True)

    def finish(self, result: Any) -> Any:
        """Return a result, awaited if it is awaitable."""
        if not _functions.is_awaitable(result):
            return result
        if self.loop is None:
            import asyncio

            self.loop = asyncio.new_event_loop()

        async def awaited() -> Any:
            return await result

        return self.loop.run_until_complete(awaited())


def _text(body: Any) -> str:
    """Return a body as text. Of bytes and arrays it shows the size only."""
    if isinstance(body, bytes):
        return body.decode()
    sizes = [len(data) for data in body.attachments]
    return f"{body.json.decode()} with attachments of {', '.join(map(str, sizes))} bytes"


def _user_frames(frames: Any) -> Any:
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__")).startswith(("hatchery", "__main__")):
        frames = frames.tb_next
    return frames


if __name__ == "__main__":
    sys.exit(main())
