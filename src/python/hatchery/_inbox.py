"""The queue of a worker that may have several calls. `_serving`, `_loop` and `_host` take frames from it.

The channel's `pending` holds frames in order of arrival. `sort` empties it. It serves at once the frames that need not
wait for the main thread: it starts asynchronous calls, delivers results of host calls, and answers calls that are
cancelled before they start. It appends all other frames to `queue`.

Only the main thread calls `sort`, and never while user code may be interrupted there. `handle_urgent` is the part of it
that the signal handler may run: results of host calls, and cancels of queued calls.
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

    from hatchery._interfaces import HostCall, Worker


# The socket is read at least this often between synchronous calls that follow each other.
FETCH_SECONDS = 0.001
CANCELLED_BODY = b'{"kind":"cancelled"}'
_main = _calls.main
_CALL, _CANCEL, _CREDIT = _wire.CALL, _wire.CANCEL, _wire.CREDIT


class Inbox:
    """Sorts and queues frames, and runs functions that other threads post to the main thread."""

    def __init__(self, worker: Worker) -> None:
        """Create an empty queue."""
        self.queue: deque[_wire.Frame] = deque()
        self.resumed: deque[_calls.Call] = deque()  # streams of the main thread, waiting for their turn
        # The host calls that code on the main thread waits for; the last one is the innermost.
        self.host_calls: list[HostCall] = []
        self._worker = worker
        self._channel = worker.channel
        self._async_names: set[bytes] | None = None
        self.async_started = False  # asynchronous calls have started since the loop's last turn
        self._streams_turn = False
        self._fetch_at = 0.0
        self._posted: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._wake: tuple[int, int] | None = None
        self._poll: poll | None = None

    def receive(self) -> _wire.Frame | None:
        """Wait for the next frame that the main thread must serve; None when the host closed the socket.

        Passes over to the event loop once there is one.
        """
        channel, queue, worker = self._channel, self.queue, self._worker
        while True:
            if channel.pending:
                self.sort()
            if worker.loop is not None:
                return worker.loop.receive()
            if self.resumed or (queue and self._async_names and monotonic() > self._fetch_at):
                channel.fetch()
                self._fetch_at = monotonic() + FETCH_SECONDS
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
        """Return the next frame that the main thread must serve, if any; streams and calls take turns."""
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
        """Wait for data or for a posted function; False when the host closed the socket."""
        if self._poll is not None:
            ready = {fd for fd, _ in self._poll.poll()}
            if self._wake is not None and self._wake[0] in ready:
                self.run_posted()
            if self._channel.fd not in ready:
                return True
        return self._channel.read_some()

    def sort(self) -> None:
        """Serve the pending frames that need not wait, and queue the others."""
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
                    worker.start_async(frame)
                    self.async_started = True
                elif pool is not None:
                    pool.serve(frame)
                else:
                    queue.append(frame)
            elif kind == _CANCEL:
                self._cancel(frame)
            elif kind == _wire.HOST_RESULT:
                worker.handle_host_result(frame)
            elif kind == _wire.STACK:
                worker.handle_control(frame)
            elif kind == _CREDIT:
                call = worker.active.get(call_id)
                if call is not None and (call.items is None or pool is not None):
                    worker.handle_control(frame)
                else:
                    queue.append(frame)  # for a stream of the main thread, or a call that has not started
            else:
                if kind == _wire.SESSION_END:
                    worker.detach_session(call_id, body)
                queue.append(frame)

    def _cancel(self, frame: _wire.Frame) -> None:
        call_id = frame[3]
        call, running = self._worker.active.get(call_id), _main.call
        if running is not None and running.id == call_id:
            running.cancelled = True  # the call waits for a host call
        elif call is None:
            if not self._withdraw(self.queue, call_id) and (frame[1] or frame[5]):
                self.queue.append(frame)  # not a valid frame; `handle_control` reports it
        elif call.items is not None and self._worker.pool is None:
            self.queue.appendleft(frame)  # end the stream before the next call starts
        else:
            self._worker.handle_control(frame)

    def _withdraw(self, frames: Any, call_id: int) -> bool:
        """Remove a call that has not started, and answer it as cancelled; False when there is none."""
        for index, frame in enumerate(frames):
            if frame[3] == call_id and frame[0] == _CALL:
                self._channel.send(_wire.ERROR, call_id, CANCELLED_BODY)
                del frames[index]  # last: near the recursion limit, `send` may fail before it writes
                return True
        return False

    def handle_urgent(self) -> None:
        """Serve the pending frames that cannot wait until user code ends. For the signal handler."""
        pending = self._channel.pending
        index = 0
        while index < len(pending):
            frame = pending[index]
            kind, call_id = frame[0], frame[3]
            if kind == _wire.HOST_RESULT:
                self._worker.handle_host_result(frame)
            elif kind != _CANCEL or not (self._withdraw(self.queue, call_id) or self._withdraw(pending, call_id)):
                index += 1
                continue
            # `_withdraw` may have removed a call before the frame.
            if index < len(pending) and pending[index] is frame:
                del pending[index]
            else:
                index -= 1
                del pending[index]

    # Functions that other threads post to the main thread.

    def open_to_threads(self) -> None:
        """Create the pipe by which `post` wakes the main thread."""
        self._wake = os.pipe()
        for fd in self._wake:
            os.set_blocking(fd, False)
        self._poll = poll()
        self._poll.register(self._channel.fd, POLLIN)
        self._poll.register(self._wake[0], POLLIN)

    @property
    def wake_fd(self) -> int | None:
        """The descriptor that becomes readable after `post`; None before `open_to_threads`."""
        return None if self._wake is None else self._wake[0]

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Have the main thread run a function of ours soon. The function must not raise."""
        self._posted.append((function, args))
        if self._wake is not None and get_ident() != _main.ident:
            try:
                os.write(self._wake[1], b"\0")
            except BlockingIOError:
                pass  # the pipe is full, so the main thread wakes up anyway

    def run_posted(self) -> None:
        """Run the posted functions, on the main thread."""
        if self._wake is not None:
            try:
                os.read(self._wake[0], 4096)
            except BlockingIOError:
                pass
        while self._posted:
            function, args = self._posted.popleft()
            function(*args)

    def send_stack(self, call_id: int) -> bool:
        """Send the stack of a call that waits for a host call on the main thread; False when no such call waits."""
        for host_call in self.host_calls:
            if host_call.call_id == call_id:
                from hatchery import _stack

                text = _stack.of_frame(_caller(host_call.frame))
                if text:
                    self._channel.send(_wire.STACK, call_id, _values.encode_leniently(text))
                return True
        return False


def _name(body: _wire.Buffer) -> bytes:
    """Return the function's name, which a call's body starts with."""
    start = bytes(body[:256])
    return start[2 : start.find(b'"', 2)]


def _caller(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame of user code below frames of ours."""
    while frame is not None and frame.f_code.co_filename.startswith("<hatchery>/"):
        frame = frame.f_back
    return frame
