"""What has arrived and waits for its turn, when there is more than one thing that can be served.

The channel's `pending` holds frames in the order of their arrival. `sort` takes them from there: what need not wait
for the main thread's turn is served at once (asynchronous calls begin, results of host calls are handed on, a call
that is cancelled before it has begun is answered), the rest goes to `queue`, whose order is that of arrival. Only the
main thread sorts, and never while user code can be interrupted there; the signal handler looks, with `attend`, for the
little that cannot wait until that code ends.
"""

from __future__ import annotations

import os
from _collections import deque  # type: ignore[import-not-found]  # typeshed does not know it
from _thread import get_ident
from select import POLLIN, poll
from time import monotonic

from hatchery import _calls, _functions, _values, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Callable

    from hatchery._host import Waiter
    from hatchery._serving import Worker

# How long what has arrived may lie unseen while synchronous calls are served one after the other.
UNSEEN_SECONDS = 0.001
CANCELLED_BODY = b'{"kind":"cancelled"}'
_main = _calls.main
_CALL, _CANCEL, _CREDIT = _wire.CALL, _wire.CANCEL, _wire.CREDIT


class Inbox:
    """Sorts frames."""

    def __init__(self, worker: Worker) -> None:
        """Begin with nothing."""
        self.queue: deque[_wire.Frame] = deque()
        self.resumed: deque[_calls.Call] = deque()  # streams of the main thread that wait for their next turn
        self.waits: list[Waiter] = []  # for what the main thread's code waits in `call_host`; the last is innermost
        self._worker = worker
        self._channel = worker.channel
        self._async_names: set[bytes] | None = None
        self.began = False  # asynchronous calls that have not had their first turn
        self._streams_turn = False
        self._look_at = 0.0
        self._handed: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()  # by threads, to the main one
        self._wake: tuple[int, int] | None = None
        self._poll: poll | None = None

    def receive(self) -> _wire.Frame | None:
        """Wait for the next frame that the main thread must serve, while there is no event loop; None at the end."""
        channel, queue, worker = self._channel, self.queue, self._worker
        while True:
            if channel.pending:
                self.sort()
            if worker.loop is not None:
                return worker.loop.receive()
            if self.resumed or (queue and self._async_names and monotonic() > self._look_at):
                channel.fetch()
                self._look_at = monotonic() + UNSEEN_SECONDS
                if channel.pending:
                    self.sort()
            if self.resumed:
                return self.next()
            if queue:
                self._streams_turn = True
                frame: _wire.Frame = queue.popleft()
                return frame
            if channel.broken is not None:
                raise channel.broken
            if not self.read():
                channel.check_end()
                return None

    def next(self) -> _wire.Frame | None:
        """Take the next frame that the main thread must serve; streams and calls take turns."""
        if self.resumed and (self._streams_turn or not self.queue):
            self._streams_turn = False
            call = self.resumed.popleft()
            return _CREDIT, _wire.NO_BODY, 0, call.id, b"", ()
        if self.queue:
            self._streams_turn = True
            frame: _wire.Frame = self.queue.popleft()
            return frame
        return None

    def read(self) -> bool:
        """Wait until something has arrived, or been handed over; False at the end."""
        if self._poll is not None:
            ready = {fd for fd, _ in self._poll.poll()}
            if self._wake is not None and self._wake[0] in ready:
                self.take_handed()
            if self._channel.fd not in ready:
                return True
        return self._channel.read_some()

    def sort(self) -> None:
        """Serve what need not wait, and queue the rest."""
        pending, queue, worker = self._channel.pending, self.queue, self._worker
        names = self._async_names
        if names is None:
            functions = worker.functions.items()
            names = self._async_names = {name.encode() for name, function in functions if _functions.is_async(function)}
        pool = worker.pool
        while pending:
            frame = pending.pop(0)
            kind, _, _, call_id, body, _ = frame
            if kind == _CALL:
                if names and (body[2 : body.find(b'"', 2)] if body.__class__ is bytes else _name(body)) in names:
                    worker.serve_async(frame)
                    self.began = True
                elif pool is not None:
                    pool.serve(frame)
                else:
                    queue.append(frame)
            elif kind == _CANCEL:
                self._cancel(frame)
            elif kind == _wire.HOST_RESULT:
                worker.host_result(frame)
            elif kind == _wire.STACK:
                worker.control(frame)
            elif kind == _CREDIT:
                call = worker.active.get(call_id)
                if call is not None and (call.items is None or pool is not None):
                    worker.control(frame)
                else:
                    queue.append(frame)  # the main thread steps through it, or its call has not begun
            else:
                if kind == _wire.SESSION_END:
                    worker.session_ends(call_id, body)
                queue.append(frame)

    def _cancel(self, frame: _wire.Frame) -> None:
        call_id = frame[3]
        call, running = self._worker.active.get(call_id), _main.call
        if running is not None and running.id == call_id:
            running.cancelled = True  # it waits for a host call
        elif call is None:
            if not self._withdraw(self.queue, call_id) and (frame[1] or frame[5]):
                self.queue.append(frame)  # no good frame
        elif call.items is not None and self._worker.pool is None:
            self.queue.appendleft(frame)  # the main thread ends it, before it begins other calls
        else:
            self._worker.control(frame)

    def _withdraw(self, frames: Any, call_id: int) -> bool:
        """Answer a call that has not begun, and take it out."""
        for index, frame in enumerate(frames):
            if frame[3] == call_id and frame[0] == _CALL:
                self._channel.send(_wire.ERROR, call_id, CANCELLED_BODY)
                del frames[index]  # not earlier: where the recursion is deep, sending may fail before it begins
                return True
        return False

    def attend(self) -> None:
        """Look, in the signal handler, for what cannot wait until user code ends."""
        pending = self._channel.pending
        index = 0
        while index < len(pending):
            frame = pending[index]
            kind, call_id = frame[0], frame[3]
            if kind == _wire.HOST_RESULT:
                self._worker.host_result(frame)
            elif kind != _CANCEL or not (self._withdraw(self.queue, call_id) or self._withdraw(pending, call_id)):
                index += 1
                continue
            # The withdrawn call may have stood before the frame.
            if index < len(pending) and pending[index] is frame:
                del pending[index]
            else:
                index -= 1
                del pending[index]

    # What threads hand to the main one.

    def open_to_threads(self) -> None:
        """Let `hand` wake the main thread."""
        self._wake = os.pipe()
        for fd in self._wake:
            os.set_blocking(fd, False)
        self._poll = poll()
        self._poll.register(self._channel.fd, POLLIN)
        self._poll.register(self._wake[0], POLLIN)

    @property
    def wake_fd(self) -> int | None:
        """What becomes readable when something has been handed over."""
        return None if self._wake is None else self._wake[0]

    def hand(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function of ours on the main thread, soon. It must not raise."""
        self._handed.append((function, args))
        if self._wake is not None and get_ident() != _main.ident:
            try:
                os.write(self._wake[1], b"\0")
            except BlockingIOError:
                pass  # it has enough to wake up for

    def take_handed(self) -> None:
        """Do what threads have handed over."""
        if self._wake is not None:
            try:
                os.read(self._wake[0], 4096)
            except BlockingIOError:
                pass
        while self._handed:
            function, args = self._handed.popleft()
            function(*args)

    def tell_stack(self, call_id: int) -> bool:
        """Tell where a call stands that waits for a host call on the main thread; False when there is none."""
        for waiter in self.waits:
            if waiter.call_id == call_id:
                from hatchery import _stack

                text = _stack.of_frame(_caller(waiter.frame))
                if text:
                    self._channel.send(_wire.STACK, call_id, _values.encode_leniently(text))
                return True
        return False


def _name(body: _wire.Buffer) -> bytes:
    """Return the name of the function, which is the first thing in a call's body."""
    start = bytes(body[:256])
    return start[2 : start.find(b'"', 2)]


def _caller(frame: FrameType | None) -> FrameType | None:
    """Return the frame of user code that has led to one of ours."""
    while frame is not None and frame.f_code.co_filename.startswith("<hatchery>/"):
        frame = frame.f_back
    return frame
