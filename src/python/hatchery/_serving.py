"""Serves the host on the main thread: runs calls, sends stream items, ends sessions. `_worker` creates the `Worker`.

Only this module, the signal handler and the event loop's reader read the channel, all on the main thread.
"""

from __future__ import annotations

import sys
from _thread import RLock
from time import monotonic
from types import CoroutineType, GeneratorType

from hatchery import _calls, _errors, _functions, _hooks, _streams, _values, _wire
from hatchery._functions import is_awaitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from hatchery._functions import Functions
    from hatchery._interfaces import Host, Inbox, Loop, Pool

_main = _calls.main


class Worker:
    """Serves calls until the host sends `shutdown` or closes the socket."""

    def __init__(self, channel: _wire.Channel, hello: dict[str, Any] | None = None) -> None:
        """Start without functions: start hooks may need the event loop before the module's functions are known."""
        hello = hello or {}
        self.channel = channel
        self.module: str = hello.get("module", "")
        self.wanted: list[str] | None = hello.get("functions")  # the host's `.functions([...])`
        self.functions: Functions = {}
        # Calls that go on while other frames are served: those on the event loop or in threads, and streams.
        self.active: dict[int, _calls.Call] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        # The states of sessions whose `session_end` frame waits for the main thread, by the frame's id.
        self._ending: dict[int, dict[str, Any] | None] = {}
        self.loop: Loop | None = None
        self.inbox: Inbox | None = None
        self.pool: Pool | None = None
        self.host: Host | None = None
        self._making = RLock()  # guards what any thread creates at first use
        self.host_functions: list[str] | None = hello.get("host_functions")
        self.log_level: int | None = hello.get("log_level")
        self.receive = channel.receive
        self.takes_turns = False  # streams must give other calls their turn
        _main.worker = self
        threads = hello.get("threads") or 0
        if (hello.get("in_flight") or 1) > 1 or threads:
            self.receive = self.get_inbox().receive
            self.takes_turns = True
        if threads:
            from hatchery._threads import Pool

            self.pool = Pool(self, threads)
        if hello.get("start_marker_fd") is not None:
            from hatchery import _start_marker

            _main.start_marker = _start_marker.map_marker(hello["start_marker_fd"])

    def serve(self) -> None:  # noqa: PLR0915 - one frame of Python's for the hot path
        """Serve one frame after the other. The hot path is one function: a call in Python costs time."""
        main = _main
        receive = self.receive
        send = self.channel.send
        functions = self.functions
        start_marker = main.start_marker
        modules = sys.modules
        wants_logging = self.log_level is not None
        values = _values
        scan = _values.scan
        encode = _values.encode
        list_type, coroutine_type = list, CoroutineType
        new_context = _calls.base_context.copy
        call_kind, result_kind = _wire.CALL, _wire.RESULT
        plain = _calls.Call(0, 0)  # shared by all calls that end within this loop
        while True:
            # Drop all references to the last call's objects.
            frame = body = attachments = text = request = args = kwargs = result = context = None
            frame = receive()
            if frame is None:
                self.channel.discard_output()
                return
            kind, _, timeout_ms, call_id, body, attachments = frame
            if kind != call_kind or attachments:
                if kind == _wire.SHUTDOWN:
                    return
                if wants_logging:
                    wants_logging = self.wants_logging()
                self.handle_control(frame)
                receive = self.receive
                continue
            try:
                if len(body) >= values.large_bytes:
                    request = values.read(body)
                else:
                    text = str(body, "utf-8")
                    request, end = scan(text, 0)
                    if end != len(text):
                        raise ValueError("the body has data after the call")  # noqa: TRY301
                if len(request) != 3:
                    self._call(call_id, timeout_ms, body, request)
                    receive = self.receive
                    continue
                name, args, kwargs = request
                function = functions[name]
            except Exception as error:
                self.refuse(call_id, body, error)
                continue
            plain.id = call_id
            plain.timeout_ms = timeout_ms
            if timeout_ms:
                plain.arrived = monotonic()
            plain.cancelled = False
            if wants_logging and "logging" in modules:
                wants_logging = self.wants_logging()
            if call_id > start_marker[0]:  # noqa: PLR1730 - max() costs twice as much
                start_marker[0] = call_id
            start_marker[1] = call_id
            main.call = plain
            try:
                try:
                    main.interruptible = function
                    if main.signal_pending:
                        main.drain()
                    context = new_context()
                    if kwargs is None and args.__class__ is list_type:
                        result = context.run(function, *args)
                    else:
                        result = context.run(function, *(args or ()), **(kwargs or {}))
                finally:
                    main.interruptible = None
            except BaseException as error:
                main.call = None
                main.start_marker[1] = 0  # not the local `start_marker`: a forked child has another
                self._send_error(call_id, _errors.of_function(plain, function, args, kwargs, error))
                continue
            main.call = None
            main.start_marker[1] = 0
            if result.__class__ is not coroutine_type:
                try:
                    send(result_kind, call_id, encode(result))
                    continue
                except (_values.EncodeError, _wire.FrameTooLargeError) as error:
                    if not is_awaitable(result):
                        self._send_error(call_id, _errors.unsendable(error, result))
                        continue
            call = _calls.Call(call_id, timeout_ms)
            call.cancelled = plain.cancelled
            call.context = context
            self.handle_result(call, result)
            receive = self.receive

    def _call(self, call_id: int, timeout_ms: int, body: _wire.Buffer, request: list[Any]) -> None:
        """Run a call with options or attachments."""
        try:
            name, args, kwargs, options = request if len(request) != 3 else (*request, None)
            function = self.functions[name]
            call = self.admit(call_id, timeout_ms, options)
        except Exception as error:
            self.refuse(call_id, body, error)
            return
        if self.log_level is not None:
            self.wants_logging()
        main = _main
        main.call = call
        _calls.mark_running(call_id)
        try:  # like `_calls.run`, but faster: a stream's first item waits for this
            try:
                main.interruptible = function
                if main.signal_pending:
                    main.drain()
                result = call.own_context().run(function, *(args or ()), **(kwargs or {}))
            finally:
                main.interruptible = None
        except BaseException as error:
            main.call = None
            main.start_marker[1] = 0
            self.fail(call, _errors.of_function(call, function, args, kwargs, error))
            return
        main.call = None
        main.start_marker[1] = 0
        self.handle_result(call, result)

    def read(self, frame: _wire.Frame) -> tuple[_calls.Call, Callable[..., Any], Any, Any] | None:
        """Read a call frame into the call, its function, args and kwargs; None when the call was refused."""
        _, _, timeout_ms, call_id, body, attachments = frame
        if self.log_level is not None:
            self.wants_logging()
        try:
            request = _read(body, attachments)
            name, args, kwargs, options = request if len(request) != 3 else (*request, None)
            function = self.functions[name]
            return self.admit(call_id, timeout_ms, options), function, args or (), kwargs or {}
        except _wire.ProtocolError:
            raise
        except Exception as error:
            self.refuse(call_id, body, error)
            return None

    def start_async(self, frame: _wire.Frame) -> None:
        """Start a call of an asynchronous function. No user code runs yet."""
        read = self.read(frame)
        if read is None:
            return
        call, function, args, kwargs = read
        try:
            result = call.own_context().run(function, *args, **kwargs)
        except BaseException as error:
            self.fail(call, _errors.of_function(call, function, args, kwargs, error))
        else:
            self.handle_result(call, result)

    def wants_logging(self) -> bool:
        """Install the log handler once user code has imported `logging`; tell whether it is still to be installed."""
        if self.log_level is None or "logging" not in sys.modules:
            return self.log_level is not None
        from hatchery import _logs

        level, self.log_level = self.log_level, None
        _logs.install(self.channel, level)
        return False

    def get_inbox(self) -> Inbox:
        """Return the inbox; create it at first use."""
        if self.inbox is None:
            from hatchery._inbox import Inbox

            with self._making:
                if self.inbox is None:
                    _main.inbox = self.inbox = Inbox(self)
        return self.inbox

    def get_host(self) -> Host:
        """Return the table of host calls; create it at first use."""
        if self.host is None:
            from hatchery._host import Host

            with self._making:
                if self.host is None:
                    self.host = Host(self)
        return self.host

    def abort(self, error: BaseException) -> None:
        """End the worker with an error of a pool thread. Runs on the main thread."""
        raise error

    def handle_host_result(self, frame: _wire.Frame) -> None:
        """Complete a host call with its result."""
        if self.host is not None:
            self.host.deliver(frame)

    def _call_with_attachments(self, frame: _wire.Frame) -> None:
        _, _, timeout_ms, call_id, body, attachments = frame
        try:
            request = _read(body, attachments)
        except _wire.ProtocolError:
            raise
        except Exception as error:
            self.refuse(call_id, body, error)
            return
        self._call(call_id, timeout_ms, body, request)

    def admit(self, call_id: int, timeout_ms: int, options: Any) -> _calls.Call:
        """Create a call and look up its session. Raises `ValueError` when its options are not valid."""
        call = _calls.Call(call_id, timeout_ms, options)
        if call.progress:
            self.channel.shared = True
        if options and "session" in options:
            call.session = self.sessions.setdefault(options["session"], {})
        return call

    def handle_result(self, call: _calls.Call, result: Any) -> None:
        """Send, await or stream the result of a call's function."""
        streams = call.credit is not None
        is_generator = streams and result.__class__ is GeneratorType  # the common case
        if not is_generator and ((streams and hasattr(type(result), "__anext__")) or is_awaitable(result)):
            self.get_loop().start(call, result)
        elif not streams:
            self.answer(call, result)
        elif is_generator or hasattr(type(result), "__next__"):
            call.items = result
            self.active[call.id] = call
            self.continue_stream(call)
        else:
            self.fail(call, _streams.not_iterable(result))

    def continue_stream(self, call: _calls.Call) -> None:
        """Send items of a stream now, or give the stream a turn later where its thread is busy."""
        if self.pool is not None:
            self.pool.credit(call, 0)
        elif self.loop is not None and self.loop.is_running:
            self.get_inbox().resumed.append(call)
        else:
            _streams.send_items(self, call)

    def get_loop(self) -> Loop:
        """Return the worker's one event loop; create it at first use."""
        if self.loop is None:
            from hatchery._loop import Loop

            self.loop = Loop(self)
            self.receive = self.loop.receive
            self.takes_turns = True
        return self.loop

    def handle_control(self, frame: _wire.Frame) -> None:
        """Serve a frame other than a plain call. Raises `ProtocolError` for a frame that a worker does not accept."""
        kind, codec, number, call_id, body, attachments = frame
        if kind == _wire.CALL:
            self._call_with_attachments(frame)
            return
        if kind == _wire.SESSION_END:
            self._end_session(call_id, number, body)
            return
        if kind == _wire.HOST_RESULT:
            self.handle_host_result(frame)
            return
        if kind not in (_wire.CANCEL, _wire.CREDIT, _wire.STACK):
            raise _wire.ProtocolError(f"a worker that is ready accepts no frame of kind {kind}")
        if codec or attachments:
            raise _wire.ProtocolError(f"a frame of kind {kind} must not have a body")
        call = self.active.get(call_id)
        if call is None:  # the call has ended, or runs on this thread
            if kind == _wire.STACK and self.inbox is not None:
                self.inbox.send_stack(call_id)
            return
        if kind == _wire.CANCEL:
            self.cancel(call)
        elif kind == _wire.STACK:
            self._send_stack(call)
        elif call.credit is not None:
            if self.pool is not None:
                self.pool.credit(call, number)  # a pool thread may set `items` at this moment
            else:
                call.credit += number
            if self.pool is None and call.items is not None:
                _streams.send_items(self, call)
            elif self.loop is not None:
                self.loop.wake(call)

    def cancel(self, call: _calls.Call) -> None:
        """Cancel an active call."""
        if self.pool is not None and call.task is None:
            self.pool.cancel(call)
        elif call.items is not None:
            _streams.cancel(self, call)
        elif self.loop is not None:
            self.loop.cancel(call)

    def _send_stack(self, call: _calls.Call) -> None:
        from hatchery import _stack

        try:
            text = self.pool.stack(call) if self.pool is not None else None
            text = text or _stack.of_call(call)
        except Exception:  # it inspects objects of other libraries
            text = None
        if text:
            _main.send(self.channel, _wire.STACK, call.id, _values.encode_leniently(text))

    def detach_session(self, call_id: int, body: _wire.Buffer) -> None:
        """Remove the state when `session_end` arrives: a later call, which may start first, gets a new one."""
        if call_id in self._ending:
            return
        try:
            name = _session_of(body)
        except _wire.ProtocolError:
            return  # `_end_session` reports it
        self._ending[call_id] = self.sessions.pop(name, None)

    def _end_session(self, call_id: int, timeout_ms: int, body: _wire.Buffer) -> None:
        name = _session_of(body)
        call = _calls.Call(call_id, timeout_ms)
        call.session = self._ending.pop(call_id) if call_id in self._ending else self.sessions.pop(name, None)
        failed: dict[str, Any] | None = None
        if call.session is not None:
            for hook in _hooks.session_end_hooks:
                try:
                    self.run_to_end(call, hook, name, call.session)
                except BaseException as error:
                    failed = failed or _errors.of_call(call, error)
                if call.cancelled:
                    break
        if failed is None:
            self.answer(call, None)
        else:
            self.fail(call, failed)

    def run_to_end(self, call: _calls.Call | None, function: Callable[..., Any], *args: Any) -> Any:
        """Run a hook, `async` or not, and return its result."""
        result = _calls.run(call, function, *args)
        if is_awaitable(result):
            result = self.get_loop().run(call, result)
        return result

    def answer(self, call: _calls.Call, result: Any) -> None:
        """Send the result of a call."""
        try:
            body = _values.encode(result)
            self.finish(call)
            _main.send(self.channel, _wire.RESULT, call.id, body)
        except (_values.EncodeError, _wire.FrameTooLargeError) as error:
            self.fail(call, _errors.unsendable(error, result))

    def fail(self, call: _calls.Call, error: dict[str, Any]) -> None:
        """Send the error of a call."""
        self.finish(call)
        self._send_error(call.id, error)

    def finish(self, call: _calls.Call) -> None:
        """Close a call: only its answer may be sent from now on."""
        if self.channel.shared:
            with self.channel.lock:  # a thread of the call may be sending progress
                call.answered = True
        else:
            call.answered = True
        if self.active.pop(call.id, None) is not None:
            call.items = call.async_items = call.task = None

    def refuse(self, call_id: int, body: _wire.Buffer, error: Exception) -> None:
        """Answer a call that names no exported function, or whose body is not valid."""
        if isinstance(error, _wire.UnmappedError):
            self._send_error(call_id, {"kind": "decode", "message": str(error)})
            return
        try:
            import json

            request = json.loads(str(body, "utf-8"))
            name, _, _ = request[:3] if isinstance(request, list) and len(request) in (3, 4) else request
        except Exception as second:  # the C scanner's own error may say too little
            name, error = None, second
        if isinstance(name, str) and isinstance(error, KeyError):
            unknown: dict[str, Any] = {"kind": "no_such_function", "name": name}
            unknown["similar"] = _functions.similar(name, self.functions)
            module = sys.modules.get(self.module)
            reason = module and _functions.why_not(module, name, self.wanted)
            if reason:
                unknown["reason"] = reason
            self._send_error(call_id, unknown)
        else:
            message = f"the call is not [function, args, kwargs, options]: {type(error).__name__}: {error}"
            self._send_error(call_id, {"kind": "decode", "message": message})

    def _send_error(self, call_id: int, error: dict[str, Any]) -> None:
        send_error(self.channel, call_id, error)

    def stop(self) -> None:
        """Cancel the remaining calls, then run the stop hooks."""
        for call in list(self.active.values()):
            self.cancel(call)
        if self.pool is not None:
            self.pool.finish()
        if self.loop is not None:
            self.loop.finish()
        failed: dict[str, Any] | None = None
        for hook in reversed(_hooks.stop_hooks):
            try:
                self.run_to_end(None, hook)
            except BaseException as error:
                failed = failed or _errors.of_exception("stop", error)
        if failed is not None:
            self._send_error(0, failed)

    def close(self) -> None:
        """Close the event loop and end its remaining tasks."""
        if self.loop is not None:
            self.loop.close()


def _session_of(body: _wire.Buffer) -> str:
    try:
        name = _values.scan(str(body, "utf-8"), 0)[0]["session"]
        if name.__class__ is not str:
            raise TypeError("the session's name is not a string")  # noqa: TRY301
    except Exception as error:
        raise _wire.ProtocolError(f"session_end cannot be read: {type(error).__name__}: {error}") from error
    return name


def _read(body: _wire.Buffer, attachments: tuple[Any, ...]) -> list[Any]:
    """Read the body of a call. Raises `ProtocolError` for wrong attachments, another exception for a wrong body."""
    if attachments:
        from hatchery import _attachments

        request = _attachments.scan(body, attachments)
    else:
        request = _values.read(body)
    if request.__class__ is not list:
        raise ValueError("the body is not an array")
    return request


def send_error(channel: _wire.Channel, call_id: int, error: dict[str, Any]) -> None:
    """Send an error, shortened when it exceeds the frame limit."""
    try:
        _main.send(channel, _wire.ERROR, call_id, _values.encode_leniently(error))
    except (MemoryError, _wire.FrameTooLargeError):
        _main.send(channel, _wire.ERROR, call_id, _values.encode_leniently(_errors.shortened(error)))
