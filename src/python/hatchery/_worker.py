"""A worker: imports the user's module, tells the host what it exports, then serves calls on the main thread.

No thread reads the socket while user code runs, and nothing but `Channel.receive` ever reads it.
"""

from __future__ import annotations

import os
import sys
from time import perf_counter
from types import CoroutineType

from hatchery import _errors, _functions, _values, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from typing import Any

    from hatchery._functions import Functions


class Worker:
    """Serves calls until the host says `shutdown` or closes the socket."""

    def __init__(self, channel: _wire.Channel, functions: Functions) -> None:
        """`functions` are those that the host may call, by name."""
        self.channel = channel
        self.functions = functions
        # Call id while user code runs, else None: what may be interrupted.
        self.current: int | None = None
        self._loop: AbstractEventLoop | None = None

    def serve(self) -> None:
        """Answer one frame after the other."""
        receive = self.channel.receive
        send = self.channel.send
        functions = self.functions
        scan = _values.scan
        encode = _values.encode
        list_type, coroutine_type = list, CoroutineType
        call_kind, result_kind = _wire.CALL, _wire.RESULT
        while True:
            frame = body = text = args = kwargs = result = None  # nothing of a call outlives it
            frame = receive()
            if frame is None:
                return
            kind, _, _, call_id, body, attachments = frame
            if kind != call_kind:
                if kind == _wire.SHUTDOWN:
                    return
                raise _wire.ProtocolError(f"a frame of kind {kind} is not for a worker that is ready")
            if attachments:
                self._fail(call_id, {"kind": "decode", "message": "calls with attachments are not supported"})
                continue
            try:
                text = str(body, "utf-8")
                (name, args, kwargs), end = scan(text, 0)
                if end != len(text):
                    raise ValueError("something follows the call")  # noqa: TRY301
                function = functions[name]
            except Exception as error:
                self._refuse(call_id, body, error)
                continue
            try:
                self.current = call_id
                if kwargs is None and args.__class__ is list_type:
                    result = function(*args)
                else:
                    result = function(*(args or ()), **(kwargs or {}))
                if result.__class__ is coroutine_type:
                    result = self._run(result)
                self.current = None
            except BaseException as error:
                self.current = None
                self._fail(call_id, _failure(function, args, kwargs, error))
                continue
            try:
                send(result_kind, call_id, encode(result))
            except _values.EncodeError as error:
                self._fail(call_id, {"kind": "encode", "message": str(error)})
            except _wire.FrameTooLargeError as error:
                self._fail(call_id, {"kind": "frame_too_large", "size": error.size, "limit": error.limit})

    def close(self) -> None:
        """End what async functions left behind."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        import asyncio

        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        try:
            if tasks:  # a gather of none asks for the current loop, which user code's asyncio.run() took away
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def _run(self, coroutine: Any) -> Any:
        """Run a coroutine on the worker's one event loop."""
        if self._loop is None or self._loop.is_closed():
            import asyncio

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop.run_until_complete(coroutine)

    def _refuse(self, call_id: int, body: _wire.Buffer, error: Exception) -> None:
        """Answer a call that does not name an exported function, or is no call at all."""
        try:
            import json

            name, _, _ = json.loads(str(body, "utf-8"))
        except Exception as second:  # the C scanner alone does not always say what is wrong
            name, error = None, second
        if isinstance(name, str) and isinstance(error, KeyError):
            near = _functions.similar(name, self.functions)
            self._fail(call_id, {"kind": "no_such_function", "name": name, "similar": near})
        else:
            message = f"the call is not [function, args, kwargs]: {type(error).__name__}: {error}"
            self._fail(call_id, {"kind": "decode", "message": message})

    def _fail(self, call_id: int, error: dict[str, Any]) -> None:
        _send_error(self.channel, call_id, error)


def _send_error(channel: _wire.Channel, call_id: int, error: dict[str, Any]) -> None:
    try:
        channel.send(_wire.ERROR, call_id, _values.encode_leniently(error))
    except (MemoryError, _wire.FrameTooLargeError):
        channel.send(_wire.ERROR, call_id, _values.encode_leniently(_errors.shortened(error)))


def _failure(function: Any, args: Any, kwargs: Any, error: BaseException) -> dict[str, Any]:
    if issubclass(type(error), TypeError):  # which asks the exception nothing
        refused = _errors.refused_arguments(function, args or [], kwargs or {}, error)
        if refused is not None:
            return {"kind": "arguments", "message": refused, "signature": _functions.signature(function)}
    return _errors.of_exception("python", error)


def _take_descriptors() -> _wire.Channel:
    """Move the socket away from fd 0, where user code would read it."""
    fd = os.dup(0)
    os.set_blocking(fd, True)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # The host reads lines of UTF-8, whatever the locale.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    return _wire.Channel(fd)


def _rss_bytes() -> int | None:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _read_hello(channel: _wire.Channel) -> dict[str, Any] | None:
    """Wait for the first frame; None when the host closed the socket instead."""
    frame = channel.receive()
    if frame is None:
        return None
    if frame[0] != _wire.HELLO:
        raise _wire.ProtocolError(f"the first frame is of kind {frame[0]}, not hello")
    try:
        hello: dict[str, Any] = _values.scan(str(frame[4], "utf-8"), 0)[0]
        spoken = hello["protocol"]
        max_frame_bytes = int(hello["max_frame_bytes"])
    except Exception as error:
        raise _wire.ProtocolError(f"hello cannot be read: {type(error).__name__}: {error}") from error
    if spoken != _wire.PROTOCOL:
        raise _wire.ProtocolError(f"the host speaks protocol {spoken}, this package speaks {_wire.PROTOCOL}")
    if max_frame_bytes < _wire.LEAST_MAX_FRAME_BYTES:
        raise _wire.ProtocolError(f"a limit of {max_frame_bytes} bytes is under {_wire.LEAST_MAX_FRAME_BYTES}")
    channel.max_frame_bytes = max_frame_bytes
    return hello


def _start(channel: _wire.Channel, hello: dict[str, Any]) -> Functions:
    """Import the module and say ready; send the error and exit when that fails."""
    phase = "import"
    try:
        sys.path[0:0] = hello["path"]
        began = perf_counter()
        __import__(hello["module"])
        import_ms = (perf_counter() - began) * 1000
        phase = "setup"
        functions = _functions.exported(sys.modules[hello["module"]], hello["functions"])
        ready = {
            "protocol": _wire.PROTOCOL,
            "pid": os.getpid(),
            "python": ".".join(map(str, sys.version_info[:3])),
            "functions": [_functions.describe(name, function) for name, function in functions.items()],
            "rss_bytes": _rss_bytes(),
            "import_ms": round(import_ms, 3),
        }
        channel.send(_wire.READY, 0, _values.encode_leniently(ready))
    except BaseException as error:
        failure = _errors.of_exception("start", error)
        failure["phase"] = phase
        _send_error(channel, 0, failure)
        sys.exit(_wire.EXIT_START_FAILED)
    return functions


def _serve_host(channel: _wire.Channel) -> None:
    hello = _read_hello(channel)
    if hello is None:
        return
    os.register_at_fork(after_in_child=channel.close)
    worker = Worker(channel, _start(channel, hello))
    try:
        worker.serve()
    finally:
        worker.close()


def _end(problem: str, code: int) -> None:
    try:
        os.write(2, f"hatchery: {problem}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # user code closed it
    sys.exit(code)


def main() -> None:
    """Serve the host at fd 0. Returns when the host wants an orderly end, exits with a code of `_wire` otherwise."""
    sys.argv = ["hatchery-worker"]
    channel = _take_descriptors()
    try:
        _serve_host(channel)
    except _wire.ProtocolError as error:
        try:
            _send_error(channel, 0, {"kind": "protocol", "message": str(error)})
        except OSError:
            pass  # the host went away meanwhile
        _end(str(error), _wire.EXIT_PROTOCOL)
    except OSError as error:
        _end(f"the connection to the host failed: {error}", _wire.EXIT_CONNECTION)
