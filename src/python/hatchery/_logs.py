"""Records of Python's `logging`, sent to the host.

The handler takes no lock of its own: user code can be interrupted, by `Cancelled` too, wherever it logs.
"""

from __future__ import annotations

import logging
import sys
from _thread import get_ident

from hatchery import _calls, _errors, _values, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MESSAGE_CHARS = 16 * 1024
_SHORT_CHARS = 400
_MOST_LEVEL = 2**32 - 1


class Handler(logging.Handler):
    """Sends records as frames."""

    def __init__(self, channel: _wire.Channel, level: int) -> None:
        """`level` is the host's: it takes nothing below."""
        super().__init__(level)
        self._channel = channel
        self._format = logging.Formatter().format

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """Have none."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> Any:
        """Send a record, unless a filter is against it."""
        passed = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record. Nothing but what interrupts user code is raised in it."""
        channel = self._channel
        if channel.fd < 0:  # a child that user code has forked has no channel
            if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)
            return
        try:
            call = _calls.running()
            call_id = 0 if call is None or call.over else call.id
            body = {"logger": _text(record.name), "message": _errors.cut(self._message(record), MESSAGE_CHARS)}
            if call is not None and call.request_id is not None:
                body["request_id"] = call.request_id
            level = record.levelno
            level = min(max(level, 0), _MOST_LEVEL) if isinstance(level, int) else 0
            try:
                self._send(call_id, _values.encode_leniently(body), level)
            except _wire.FrameTooLargeError:
                body = {key: _errors.cut(text, _SHORT_CHARS) for key, text in body.items()}
                self._send(call_id, _values.encode_leniently(body), level)
        except Exception:  # noqa: S110
            pass  # the host is gone, or the record is as odd as can be

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
# The levels of a root logger that nobody has configured: logging's own, and what this has made of it.
_unconfigured = {logging.WARNING}


def prepare(channel: _wire.Channel, level: int) -> None:
    """Do in a template what `install` would do in each worker on copies of the pages; the channel is the same."""
    _let_through(level)
    _prepared.append(Handler(channel, level))


def _let_through(level: int) -> None:
    """Have a root logger that nobody has configured let all through that the host wants.

    This clears what each logger has noted of its level.
    """
    root = logging.getLogger()
    wanted = min(level, logging.WARNING)
    if not root.handlers and root.level in _unconfigured and root.level != wanted:
        root.setLevel(wanted)
        _unconfigured.add(wanted)


def install(channel: _wire.Channel, level: int) -> None:
    """Send the records that reach the root logger to the host, from this level on.

    What the root logger would print to stdout or stderr is not printed any more, since the host would get that a
    second time, as a line of text. A root logger that nobody has configured lets all through that the host wants.
    """
    channel.shared = True  # any thread may log
    root = logging.getLogger()
    printed = [sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__]
    _let_through(level)
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler and handler.stream in printed:
            root.removeHandler(handler)
    handler = _prepared.pop() if _prepared else Handler(channel, level)
    if handler.level != level:  # the host's may have changed since the template started
        handler.setLevel(level)
    root.addHandler(handler)
