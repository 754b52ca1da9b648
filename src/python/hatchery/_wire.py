"""Frames over the socket to the host. `src/port/frame.rs` is the other end; the same golden frames test both.

A frame is a length (u32) and that many bytes of payload: header, lengths of the attachments (u64 each), body,
attachments. All integers are big-endian. An attachment is in a memfd instead of the payload if the highest bit of its
length is set.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock
from select import POLLIN, poll
from struct import Struct
from time import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Union

    Buffer = Union[bytes, bytearray, memoryview]
    # kind, codec, number, call id, body, attachments; a memfd that is not received yet is represented by its length
    Frame = tuple[int, int, int, int, Buffer, tuple[Union[Buffer, int], ...]]

PROTOCOL = 1
DEFAULT_MAX_FRAME_BYTES = 64 * 1024 * 1024
MIN_FRAME_LIMIT_BYTES = 4096  # room for the shortened form of any error

# Kinds of frames. 13 and 14 are reserved: ping, pong.
HELLO = 1  # host: what to import; the first frame
READY = 2  # worker: what it exports
CALL = 3  # host: run a function
RESULT = 4  # worker: what it returned
ERROR = 5  # worker: why there is no result
CHUNK = 6  # worker: one item of a stream
END = 7  # worker: the end of a stream
CANCEL = 8  # host: cancel a call
CREDIT = 9  # host: how many more stream items may be sent
HOST_CALL = 10  # worker: call a function of the host
HOST_RESULT = 11  # host: what that returned, or why not
LOG = 12  # worker: a record of `logging`
SESSION_END = 15  # host: a session is over
SHUTDOWN = 16  # host: end in an orderly way
PROGRESS = 17  # worker: how far a call is
STACK = 18  # host: asks where a call is suspended; worker: its stack
HOST_CANCEL = 19  # worker: cancel a host call

NO_BODY = 0
JSON = 1

# Exit codes of a worker; 0 is an orderly end (shutdown, or the host closed the socket).
EXIT_START_FAILED = 1  # the error was sent in place of ready
EXIT_CONNECTION = 74  # the socket failed in mid-frame or on writing
EXIT_PROTOCOL = 76  # the host violated the protocol
# The bootstrap exits with 78 if another Python has compiled the package.

_IN_MID_FRAME = "the host closed the socket in the middle of a frame"
_LENGTH = Struct(">I")
_PREFIXED = Struct(">IBBHIQI")
_HEADER = Struct(">BBHIQI")
_PREFIX_BYTES = _LENGTH.size
HEADER_BYTES = _HEADER.size
_HEAD_BYTES = _PREFIX_BYTES + HEADER_BYTES
_READ_BYTES = 64 * 1024
_POLL_SECONDS = 0.0005  # how often `share` checks whether the main thread has completed its frame
_MAX_DEFERRED = 1000  # more deferred frames than this are dropped
_IN_MEMFD = 1 << 63
MIN_VIEW_BYTES = 1024 * 1024  # attachments of this size or more become views of their own memory, smaller ones copies
MAX_PIECES = 512  # for readv and writev; the kernel takes up to 1024
_GATHER_BYTES = 16 * 1024  # frames of this size or more are written by writev instead of joined first

_MAX_SPARE_BYTES = 32 * 1024 * 1024

_getrefcount = getattr(sys, "getrefcount", None)  # None if this is not CPython
_read = os.read
_write = os.write
_unpack_prefixed = _PREFIXED.unpack_from
_pack_prefixed = _PREFIXED.pack


class ProtocolError(Exception):
    """The host violated the protocol."""


class UnmappedError(Exception):
    """A memfd could not be received or mapped. Stands in for the attachment, and is raised when its body is read."""


class FrameTooLargeError(Exception):
    """A frame would exceed the host's limit."""

    def __init__(self, size: int, limit: int) -> None:
        """`size` and `limit` are bytes of payload."""
        super().__init__(f"a frame of {size} bytes is over the limit of {limit}")
        self.size = size
        self.limit = limit


class Encoded:
    """A body with attachments, sent in place of a body's bytes."""

    __slots__ = ("attachments", "json")

    def __init__(self, json: bytes, attachments: list[Any]) -> None:
        """Keep the parts; each attachment supports the buffer protocol, as bytes."""
        self.json = json
        self.attachments = attachments


def _parse_header(payload: Buffer, size: int) -> tuple[int, int, int, int, int, tuple[int, ...]]:
    """Read header and lengths of a payload of `size` bytes. `payload` may hold just these.

    Returns kind, codec, number, call id, the body's length and the lengths of the attachments.
    """
    if size < HEADER_BYTES:
        raise ProtocolError(f"a payload of {size} bytes is shorter than its header of {HEADER_BYTES}")
    kind, codec, count, number, call_id, body_bytes = _HEADER.unpack_from(payload)
    if not HELLO <= kind <= HOST_CANCEL:
        raise ProtocolError(f"unknown kind of frame: {kind}")
    if codec > JSON:
        raise ProtocolError(f"unknown codec: {codec}")
    if codec == NO_BODY and body_bytes:
        raise ProtocolError(f"a body of {body_bytes} bytes without a codec")
    body_at = HEADER_BYTES + 8 * count
    if body_at > size:
        raise ProtocolError(f"a payload of {size} bytes cannot hold the lengths of {count} attachments")
    lengths = Struct(f">{count}Q").unpack_from(payload, HEADER_BYTES)
    described = body_at + body_bytes + sum([length for length in lengths if not length & _IN_MEMFD])
    if described != size:
        raise ProtocolError(f"the header describes a payload of {described} bytes, but it has {size}")
    return kind, codec, number, call_id, body_bytes, lengths


def decode(payload: Buffer) -> Frame:
    """Split a payload into the parts of a frame. Copies nothing if `payload` is a memoryview."""
    kind, codec, number, call_id, body_bytes, lengths = _parse_header(payload, len(payload))
    body_at = HEADER_BYTES + 8 * len(lengths)
    at = body_at + body_bytes
    attachments: list[Buffer | int] = []
    for length in lengths:
        if length & _IN_MEMFD:
            attachments.append(length ^ _IN_MEMFD)
        else:
            attachments.append(payload[at : at + length])
            at += length
    return kind, codec, number, call_id, payload[body_at : body_at + body_bytes], tuple(attachments)


# The last large buffer, reused for the next part of the same length once nothing refers to it. A new buffer costs a
# page fault for every 4 KiB, which takes longer than to copy the data.
_spare: list[bytearray] = [bytearray()]


def _references() -> int:
    return 0 if _getrefcount is None else _getrefcount(_spare[0])


_UNUSED = _references()


def _memory(length: int) -> bytearray:
    if _getrefcount is None or not MIN_VIEW_BYTES <= length <= _MAX_SPARE_BYTES:
        return bytearray(length)
    if len(_spare[0]) != length or _references() != _UNUSED:
        _spare[0] = bytearray()  # free the old one before the new one is allocated
        _spare[0] = bytearray(length)
    return _spare[0]


class _LargeFrame:
    """A large frame that has arrived in part. Body and attachments are read into buffers of their own."""

    __slots__ = ("_at", "_header", "_parts", "_rest")

    def __init__(self, start: memoryview, size: int) -> None:
        """`start` is the beginning of a payload of `size` bytes, its header and lengths at the least."""
        kind, codec, number, call_id, body_bytes, lengths = _parse_header(start, size)
        self._header = kind, codec, number, call_id, lengths
        inline = [length for length in lengths if not length & _IN_MEMFD]
        self._parts = [_memory(length) for length in (body_bytes, *inline)]
        self._rest: list[memoryview] = []  # buffers to fill, from `_at` on
        self._at = 0
        at = HEADER_BYTES + 8 * len(lengths)
        for part in self._parts:
            view = memoryview(part)
            here = start[at : at + len(part)]
            view[: len(here)] = here
            at += len(here)
            if len(here) < len(part):
                self._rest.append(view[len(here) :])

    @staticmethod
    def can_begin(start: memoryview) -> bool:
        """Tell whether header and lengths are complete."""
        return len(start) >= HEADER_BYTES and len(start) >= HEADER_BYTES + 8 * _HEADER.unpack_from(start)[2]

    @property
    def is_whole(self) -> bool:
        return self._at == len(self._rest)

    def read(self, fd: int) -> bool:
        """Read once; False at the end of the stream."""
        rest, at = self._rest, self._at
        count = os.readv(fd, rest[at : at + MAX_PIECES])
        if not count:
            return False
        while at < len(rest) and count >= len(rest[at]):
            count -= len(rest[at])
            at += 1
        if count:
            rest[at] = rest[at][count:]
        self._at = at
        return True

    def frame(self) -> Frame:
        """Return the whole frame."""
        kind, codec, number, call_id, lengths = self._header
        body, *inline = self._parts
        parts = iter(inline)
        attachments = [length ^ _IN_MEMFD if length & _IN_MEMFD else memoryview(next(parts)) for length in lengths]
        return kind, codec, number, call_id, body, tuple(attachments)


def _writes_without_lock(ident: int) -> bool:
    """Tell whether a thread is inside `Channel.send` without the lock."""
    frame = sys._current_frames().get(ident)  # noqa: SLF001
    while frame is not None:
        if frame.f_code is Channel.send.__code__:
            names = frame.f_locals
            # A body with attachments is sent under the lock.
            if names["body"].__class__ is bytes and names.get("lock") is None:
                return True
        frame = frame.f_back
    return False


def _single_frame(data: bytes, max_frame_bytes: int) -> Frame | None:
    """Return the frame if the data is exactly one frame without attachments, the common case; else None."""
    size = len(data)
    if size < _HEAD_BYTES:
        return None
    length, kind, codec, count, number, call_id, body_bytes = _unpack_prefixed(data)
    if (
        HELLO <= kind <= HOST_CANCEL
        and codec == JSON
        and not count
        and body_bytes == size - _HEAD_BYTES
        and length == size - _PREFIX_BYTES
        and length <= max_frame_bytes
    ):
        return kind, JSON, number, call_id, data[_HEAD_BYTES:], ()
    return None


class Channel:
    """The worker's end of the socket.

    Only the main thread reads. `pending` holds whole frames that are read and not served yet. Once `shared` is set, all
    writes happen under `lock`, and any thread may write.
    """

    __slots__ = (
        "_deferred",
        "_large_frame",
        "_poll",
        "_sending_deferred",
        "_tail",
        "_wanted",
        "broken",
        "fd",
        "fd_socket",
        "lock",
        "max_frame_bytes",
        "pending",
        "shared",
        "writing",
    )

    def __init__(self, fd: int, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        """`fd` is a connected stream socket in blocking mode."""
        self.fd = fd
        self.max_frame_bytes = max_frame_bytes
        self.fd_socket = -1  # where memfds come and go
        self.pending: list[Frame] = []
        # A violation found by a read ahead; raised once the frames before it are served.
        self.broken: ProtocolError | None = None
        self.shared = False  # threads other than the main one may write
        self.lock = RLock()
        self.writing = False
        # Frames sent while the same thread was writing another one: kind, call id, body, number.
        self._deferred: list[tuple[int, int, bytes | Encoded, int]] = []
        self._sending_deferred = False
        self._tail: Buffer = b""
        self._wanted = 0  # `_tail` holds no whole frame below this many bytes
        self._large_frame: _LargeFrame | None = None  # `_tail` is empty meanwhile
        self._poll = poll()
        self._poll.register(fd, POLLIN)

    def abandon(self) -> None:
        """Close the socket's copy in a forked child, which must not serve the host."""
        fd, self.fd = self.fd, -1
        self.writing = False
        self._deferred.clear()
        self._sending_deferred = False
        self.lock = RLock()  # a thread that does not exist in the child may hold the old one
        self.pending.clear()
        if self.fd_socket >= 0:
            os.close(self.fd_socket)
            self.fd_socket = -1
        if fd >= 0:
            os.close(fd)

    def discard_output(self) -> None:
        """Discard all that is sent from now on, because the host has closed the socket."""
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self.fd, inheritable=False)
        os.close(null)

    def wait(self) -> None:
        """Wait until there is data to read. An exception of a signal handler here loses nothing."""
        self._poll.poll()

    def is_readable(self) -> bool:
        """Tell whether a read would return at once."""
        return bool(self._poll.poll(0))

    def fetch(self) -> None:
        """Read all data that has arrived, without waiting. Whole frames become pending, a partial frame is kept."""
        while self.fd >= 0 and self.broken is None and self.is_readable() and self.read_some():
            pass

    def read_some(self) -> bool:
        """Read once. Whole frames become pending. Returns False when the host has closed the socket."""
        if self._large_frame is not None:
            return self._read_on(self._large_frame)
        tail = self._tail
        data = _read(self.fd, _READ_BYTES)
        if not data:
            return False
        if not tail:
            frame = _single_frame(data, self.max_frame_bytes)
            if frame is not None:
                self.pending.append(frame)
                return True
            self._tail = data
        else:
            if not isinstance(tail, bytearray):
                tail = self._tail = bytearray(tail)
            tail += data
        if len(self._tail) >= self._wanted:
            self._split()
        return True

    @property
    def in_mid_frame(self) -> bool:
        """Whether a frame has arrived in part."""
        return bool(self._tail) or self._large_frame is not None

    def check_end(self) -> None:
        """Raise `ConnectionError` if the host closed the socket in the middle of a frame."""
        if self.in_mid_frame:
            raise ConnectionError(_IN_MID_FRAME)

    def receive(self) -> Frame | None:
        """Wait for the next frame; None when the host closed the socket between two frames."""
        if self.pending:
            return self.pending.pop(0)
        if self._tail or self._large_frame is not None:
            return self._assemble()
        data = _read(self.fd, _READ_BYTES)
        frame = _single_frame(data, self.max_frame_bytes)
        if frame is not None:
            return frame
        if not data:
            return None
        self._tail = data
        self._split()
        return self._assemble()

    def _assemble(self) -> Frame:
        """Read until a frame is complete, and return it."""
        while not self.pending:
            if self.broken is not None:
                raise self.broken
            if not self.read_some():
                raise ConnectionError(_IN_MID_FRAME)
        return self.pending.pop(0)

    def _read_on(self, large_frame: _LargeFrame) -> bool:
        """Read once for a large frame; False when the host has closed the socket."""
        if not large_frame.is_whole and not large_frame.read(self.fd):
            return False
        if large_frame.is_whole:
            try:
                self.pending.append(self._complete(large_frame.frame()))
                self._large_frame = None
            except ProtocolError as error:
                self.broken = error.with_traceback(None)
        return True

    def _complete(self, frame: Frame) -> Frame:
        """Receive and map the memfds of a frame."""
        if not frame[5] or int not in map(type, frame[5]):
            return frame
        if self.fd_socket < 0:
            raise ProtocolError("a memfd was announced, but there is no socket for it")
        from hatchery import _memfds

        return *frame[:5], _memfds.receive(self.fd_socket, frame[3], frame[5])

    def _split(self, at: int = 0) -> None:
        """Move the whole frames of `_tail`, from `at` on, to `pending`."""
        data, pending = self._tail, self.pending
        view = memoryview(data)
        self._wanted = 0
        try:
            if len(data) <= _READ_BYTES:  # for small frames a copy is cheaper than a view
                most = min(self.max_frame_bytes, len(data))
                while len(data) - at >= _HEAD_BYTES:
                    length, kind, codec, count, number, call_id, body_bytes = _unpack_prefixed(data, at)
                    end = at + _PREFIX_BYTES + length
                    if (
                        length > most
                        or end > len(data)
                        or codec != JSON
                        or count
                        or body_bytes != length - HEADER_BYTES
                        or not HELLO <= kind <= HOST_CANCEL
                    ):
                        break  # the loop below handles it or raises
                    pending.append((kind, JSON, number, call_id, bytes(data[at + _HEAD_BYTES : end]), ()))
                    at = end
            while len(view) - at >= _PREFIX_BYTES:
                end = at + _PREFIX_BYTES + self._length(view, at)
                if end > len(view):
                    start = view[at + _PREFIX_BYTES :]
                    if end - at <= _READ_BYTES:
                        self._wanted = end - at
                    elif _LargeFrame.can_begin(start):
                        self._large_frame = _LargeFrame(start, end - at - _PREFIX_BYTES)
                        at = len(view)
                    break
                pending.append(self._complete(decode(view[at + _PREFIX_BYTES : end])))
                at = end
        except ProtocolError as error:
            self.broken = error.with_traceback(None)  # raised once the frames before it are served
        finally:  # even after a RecursionError in a signal handler: no frame may become pending twice
            if at:
                self._tail = bytes(view[at:])

    def _length(self, data: Buffer, at: int) -> int:
        length: int = _LENGTH.unpack_from(data, at)[0]
        if length > self.max_frame_bytes:
            raise ProtocolError(f"a frame of {length} bytes is over the limit of {self.max_frame_bytes}")
        if length < HEADER_BYTES:
            raise ProtocolError(f"a frame of {length} bytes is shorter than its header of {HEADER_BYTES}")
        return length

    def send(self, kind: int, call_id: int, body: bytes | Encoded = b"", number: int = 0) -> None:
        """Write one frame. Raises `FrameTooLargeError` before it writes."""
        if body.__class__ is not bytes:
            from hatchery import _memfds

            _memfds.send(self, kind, call_id, body)  # type: ignore[arg-type]  # a compared class narrows no type
            return
        size = HEADER_BYTES + len(body)
        if size > self.max_frame_bytes:
            raise FrameTooLargeError(size, self.max_frame_bytes)
        head = _pack_prefixed(size, kind, JSON if body else NO_BODY, 0, number, call_id, len(body))
        lock = self.lock if self.shared else None  # the lock costs as much as packing the head
        if lock is not None:
            lock.acquire()
            if self.writing:  # a signal handler or `__del__` interrupted this thread in the middle of a frame
                self.defer_frame(kind, call_id, body, number)
                lock.release()
                return
            self.writing = True
        try:
            if size < _GATHER_BYTES:
                data = head + body
                written = _write(self.fd, data)
                if written != len(data):
                    self._write_rest(memoryview(data)[written:])
                return
            written = os.writev(self.fd, [head, body])
            while written < len(head):
                written += os.writev(self.fd, [head[written:], body])
            self._write_rest(memoryview(body)[written - len(head) :])
        finally:
            if lock is not None:
                self.writing = False
                lock.release()
                self.send_deferred()

    def share(self, main_ident: int) -> None:
        """Set `shared`, and wait until the main thread writes nothing without the lock.

        Another thread calls this before its first write.
        """
        if self.shared:
            return
        with self.lock:
            self.shared = True
            while _writes_without_lock(main_ident):  # a write that began before
                sleep(_POLL_SECONDS)

    def defer_frame(self, kind: int, call_id: int, body: bytes | Encoded, number: int) -> None:
        """Keep a frame until this thread has written the frame that it interrupted. Call it under `lock`."""
        if len(self._deferred) < _MAX_DEFERRED:
            self._deferred.append((kind, call_id, body, number))

    def send_deferred(self) -> None:
        """Write the deferred frames, in order."""
        if not self._deferred:
            return
        with self.lock:  # another thread may be doing the same
            if self._sending_deferred:
                return  # this thread is doing it, further up the stack
            self._sending_deferred = True
            try:
                while self._deferred:
                    self.send(*self._deferred.pop(0))
            finally:
                self._sending_deferred = False

    def _write_rest(self, rest: memoryview) -> None:
        while rest:
            rest = rest[_write(self.fd, rest) :]
