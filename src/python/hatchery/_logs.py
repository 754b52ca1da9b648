"""Sends records of Python's `logging` to the host. `_serving` installs it once user code has imported `logging`.

The handler has no lock: `Cancelled` may interrupt user code while it logs, and could leave the lock held.
"""

from __future__ import annotations

import logging
import os
import sys
from _stat import S_ISFIFO
from _thread import get_ident

from hatchery import _calls, _errors, _values, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

MESSAGE_CHARS = 16 * 1024
_SHORT_CHARS = 400
_MAX_LEVEL = 2**32 - 1


class Handler(logging.Handler):
    """Sends records as frames."""

    def __init__(self, channel: _wire.Channel, level: int) -> None:
        """`level` is the lowest level that the host accepts."""
        super().__init__(level)
        self._channel = channel
        self._format = logging.Formatter().format

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """Create no lock."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> Any:
        """Send a record that passes the filters."""
        passed = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record. Raises nothing but exceptions that interrupt user code."""
        try:
            call = _calls.current_call()
            call_id = 0 if call is None or call.answered else call.id
            body = {"logger": _text(record.name), "message": _errors.cut(self._message(record), MESSAGE_CHARS)}
            if call is not None and call.request_id is not None:
                body["request_id"] = call.request_id
            level = record.levelno
            level = min(max(level, 0), _MAX_LEVEL) if isinstance(level, int) else 0
            try:
                self._send(call_id, _values.encode_leniently(body), level)
            except _wire.FrameTooLargeError:
                body = {key: _errors.cut(text, _SHORT_CHARS) for key, text in body.items()}
                self._send(call_id, _values.encode_leniently(body), level)
        except Exception:  # noqa: S110
            pass  # the connection is closed, or the record is unusable

    def _message(self, record: logging.LogRecord) -> str:
        try:
            return self._format(record)
        except Exception as error:
            return f"{_text(record.msg)} (it cannot be formatted: {type(error).__name__}: {_text(error)})"

    def _send(self, call_id: int, body: bytes, level: int) -> None:
        channel = self._channel
        runner = _calls.runners.get(get_ident())
        if runner is not None:
            runner.send(_wire.LOG, call_id, body, level)
        else:
            _calls.main.send(channel, _wire.LOG, call_id, body, level)


def _text(value: object) -> str:
    try:
        return value if type(value) is str else str(value)
    except Exception as error:
        return f"<its __str__ raised {type(error).__name__}>"


_prepared: list[Handler] = []
# The levels of a root logger without configuration: the default of `logging`, and what this module has set.
_unconfigured = {logging.WARNING}


def prepare(channel: _wire.Channel, level: int) -> None:
    """Do the common part of `install` once, in a template, so that workers share the pages that it writes."""
    _let_through(level)
    _prepared.append(Handler(channel, level))


def _let_through(level: int) -> None:
    """Lower the level of a root logger without configuration to the host's level.

    A change of the level clears the cached levels of all loggers.
    """
    root = logging.getLogger()
    wanted = min(level, logging.WARNING)
    if not root.handlers and root.level in _unconfigured and root.level != wanted:
        root.setLevel(wanted)
        _unconfigured.add(wanted)


def install(channel: _wire.Channel, level: int) -> None:
    """Send the records that reach the root logger to the host, from `level` on.

    `dictConfig` and `basicConfig(force=True)` would remove a handler of the root logger, so this replaces the functions
    by which `logging` calls handlers. The level of a root logger without configuration is lowered to `level`.

    Output of other handlers for these records is dropped: the host would get each record again, as a line of text.
    """
    channel.shared = True  # any thread may log
    _let_through(level)
    handler = _prepared.pop() if _prepared else Handler(channel, level)
    if handler.level != level:  # the host's level may have changed since the template started
        handler.setLevel(level)
    call_theirs, handle_theirs = logging.Logger.callHandlers, logging.Handler.handle
    main = _calls.main

    def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
        try:
            # The channel is closed in a child that user code has forked.
            if channel.fd >= 0 and record.levelno >= handler.level and _reaches_root(self):
                handler.handle(record)
            call_theirs(self, record)
        finally:
            if main.deferred is not None:
                main.raise_deferred()

    def handle(self: logging.Handler, record: logging.LogRecord) -> Any:
        if channel.fd < 0 or not _reaches_root(_logger_of(record)):
            return handle_theirs(self, record)
        if isinstance(self, logging.StreamHandler):
            return False if _is_captured(self.stream) else handle_theirs(self, record)
        # Nothing tells whether and where such a handler prints, so silence all captured streams.
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            _make_quiet(stream)
        ident = get_ident()
        was_quiet = ident in _quiet
        _quiet.add(ident)
        try:
            return handle_theirs(self, record)
        finally:
            if not was_quiet:
                _quiet.discard(ident)

    _codes.update(quiet=handle.__code__, loud=logging.Handler.handleError.__code__)
    logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]  # no configuration changes it
    logging.Handler.handle = handle  # type: ignore[method-assign]  # for handlers of every class


def _logger_of(record: logging.LogRecord) -> Any:
    root = logging.getLogger()
    return root if record.name == root.name else root.manager.loggerDict.get(record.name)


def _reaches_root(logger: Any) -> bool:
    root = logging.getLogger()
    while logger is not root:
        if not isinstance(logger, logging.Logger) or not logger.propagate:
            return False
        logger = logger.parent
    return True


def _is_captured(stream: Any) -> bool:
    """Tell whether the host gets the output of a stream as text."""
    try:
        there = os.fstat(stream.fileno())
        return S_ISFIFO(there.st_mode) and any(os.path.samestat(there, os.fstat(fd)) for fd in (1, 2))
    except Exception:  # it has no descriptor, or is closed
        return False


# Threads in which a handler runs whose output is dropped.
_quiet: set[int] = set()
_codes: dict[str, CodeType] = {}


def _make_quiet(stream: Any) -> None:
    """Have a stream drop the output of quiet threads."""
    write = getattr(stream, "write", None)
    if write is None or getattr(write, "__name__", "") == _WRITE or not _is_captured(stream):
        return

    def write_unless_quiet(text: str) -> Any:
        return len(text) if get_ident() in _quiet and _is_in_handler() else write(text)

    try:
        stream.write = write_unless_quiet
    except AttributeError:
        pass  # the stream's `write` cannot be replaced


_WRITE = "write_unless_quiet"


def _is_in_handler() -> bool:
    """Tell whether a handler runs. The report of a handler's failure is not dropped.

    An interrupted handler may leave its thread in `_quiet`, so this inspects the stack.
    """
    frame = sys._getframe()  # noqa: SLF001
    while frame is not None and frame.f_code is not _codes["loud"]:
        if frame.f_code is _codes["quiet"]:
            return True
        frame = frame.f_back  # type: ignore[assignment]  # the last one has none
    return False
