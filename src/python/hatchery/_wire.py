"""Frames over the socket to the host. `src/port/frame.rs` is the other end; both read the same golden frames.

A frame is a length (u32) and so many bytes of payload: header, lengths of the attachments (u64 each), body,
attachments. All integers are big-endian. An attachment whose length has its highest bit set is not in the payload, but
in a memfd.
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
    from typing import Union

    from hatchery._attachments import Encoded

    Buffer = Union[bytes, bytearray, memoryview]
    # kind, codec, number, call id, body, attachments; of one in a memfd that is not received yet, its length
    Frame = tuple[int, int, int, int, Buffer, tuple[Union[Buffer, int], ...]]

PROTOCOL = 1
DEFAULT_MAX_FRAME_BYTES = 64 * 1024 * 1024
LEAST_MAX_FRAME_BYTES = 4096  # the shortest form of any error fits

# Kinds of frames. 13 and 14 are reserved: ping, pong.
HELLO = 1  # host: what to import; the first frame
READY = 2  # worker: what it exports
CALL = 3  # host: run a function
RESULT = 4  # worker: what it returned
ERROR = 5  # worker: why there is no result
CHUNK = 6  # worker: one item of a stream
END = 7  # worker: the end of a stream
CANCEL = 8  # host: give up a call
CREDIT = 9  # host: how many more items may come
HOST_CALL = 10  # worker: call a function of the host
HOST_RESULT = 11  # host: what that returned, or why not
LOG = 12  # worker: a record of `logging`
SESSION_END = 15  # host: a session is over
SHUTDOWN = 16  # host: end in an orderly way
PROGRESS = 17  # worker: how far a call is
STACK = 18  # host: where is a call suspended? worker: there
HOST_CANCEL = 19  # worker: give up a host call

NO_BODY = 0
JSON = 1

# Exit codes of a worker; 0 is an orderly end (shutdown, or the host closed the socket).
EXIT_START_FAILED = 1  # the error was sent in place of ready
EXIT_CONNECTION = 74  # the socket failed in mid-frame or on writing
EXIT_PROTOCOL = 76  # the host sent what is no frame of this protocol
# 78 is the bootstrap's: package compiled by another Python.

_IN_MID_FRAME = "the host closed the socket in the middle of a frame"
_LENGTH = Struct(">I")
_PREFIXED = Struct(">IBBHIQI")
_HEADER = Struct(">BBHIQI")
_PREFIX_BYTES = _LENGTH.size
HEADER_BYTES = _HEADER.size
_HEAD_BYTES = _PREFIX_BYTES + HEADER_BYTES
_READ_BYTES = 64 * 1024
_LOOK_SECONDS = 0.0005  # how often a thread looks whether the main one has written what it began
_MOST_LATE = 1000  # frames that wait for another to be written
_IN_MEMFD = 1 << 63
LEAST_VIEW_BYTES = 1024 * 1024  # from here on bytes are views of memory that is theirs alone, below it copies
MOST_PIECES = 512  # the kernel reads and writes 1024 at once
_GATHER_BYTES = 16 * 1024  # from here on two pieces are written by writev, not joined by a copy

_MOST_SPARE_BYTES = 32 * 1024 * 1024

_getrefcount = getattr(sys, "getrefcount", None)  # None: another Python than CPython
_read = os.read
_write = os.write
_unpack_prefixed = _PREFIXED.unpack_from
_pack_prefixed = _PREFIXED.pack


class ProtocolError(Exception):
    """The host sent what is no frame of this protocol."""


class UnmappedError(Exception):
    """Takes the place of an attachment whose memfd could not be received or mapped; raised when its frame is read."""


class FrameTooLargeError(Exception):
    """A frame would be larger than the host takes."""

    def __init__(self, size: int, limit: int) -> None:
        """`size` and `limit` are bytes of payload."""
        super().__init__(f"a frame of {size} bytes is over the limit of {limit}")
        self.size = size
        self.limit = limit


def _described(payload: Buffer, size: int) -> tuple[int, int, int, int, int, tuple[int, ...]]:
    """Read the header of a payload of `size` bytes, of which there may be no more than that, and the lengths.

    Returns kind, codec, number, call id, the body's length and the attachments'.
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
    """Take a payload apart, without copies when it is a memoryview."""
    kind, codec, number, call_id, body_bytes, lengths = _described(payload, len(payload))
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


# Memory of large parts, for the next one of that length once nobody has it any more: what is new costs a page fault for
# every 4 KiB, which is more than to copy it.
_spare: list[bytearray] = [bytearray()]


def _references() -> int:
    return 0 if _getrefcount is None else _getrefcount(_spare[0])


_UNUSED = _references()


def _memory(length: int) -> bytearray:
    if _getrefcount is None or not LEAST_VIEW_BYTES <= length <= _MOST_SPARE_BYTES:
        return bytearray(length)
    if len(_spare[0]) != length or _references() != _UNUSED:
        _spare[0] = bytearray()  # first, so that there are not two
        _spare[0] = bytearray(length)
    return _spare[0]


class _Incoming:
    """The rest of a frame of which the beginning has come: body and attachments are read into memory of their own."""

    __slots__ = ("_at", "_described", "_parts", "_rest")

    def __init__(self, begun: memoryview, size: int) -> None:
        """`begun` is the beginning of a payload of `size` bytes, its header and lengths at the least."""
        kind, codec, number, call_id, body_bytes, lengths = _described(begun, size)
        self._described = kind, codec, number, call_id, lengths
        inline = [length for length in lengths if not length & _IN_MEMFD]
        self._parts = [_memory(length) for length in (body_bytes, *inline)]
        self._rest: list[memoryview] = []  # what is to be filled, from `_at` on
        self._at = 0
        at = HEADER_BYTES + 8 * len(lengths)
        for part in self._parts:
            view = memoryview(part)
            here = begun[at : at + len(part)]
            view[: len(here)] = here
            at += len(here)
            if len(here) < len(part):
                self._rest.append(view[len(here) :])

    @staticmethod
    def can_begin(begun: memoryview) -> bool:
        """Whether header and lengths are there."""
        return len(begun) >= HEADER_BYTES and len(begun) >= HEADER_BYTES + 8 * _HEADER.unpack_from(begun)[2]

    @property
    def is_whole(self) -> bool:
        return self._at == len(self._rest)

    def read(self, fd: int) -> bool:
        """Read once; False at the end of the stream."""
        rest, at = self._rest, self._at
        count = os.readv(fd, rest[at : at + MOST_PIECES])
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
        kind, codec, number, call_id, lengths = self._described
        body, *inline = self._parts
        parts = iter(inline)
        attachments = [length ^ _IN_MEMFD if length & _IN_MEMFD else memoryview(next(parts)) for length in lengths]
        return kind, codec, number, call_id, body, tuple(attachments)


def _writes_without_lock(ident: int) -> bool:
    """Tell whether a thread is in the middle of `Channel.send`, and did not take the lock."""
    frame = sys._current_frames().get(ident)  # noqa: SLF001
    while frame is not None:
        if frame.f_code is Channel.send.__code__:
            names = frame.f_locals
            # What has attachments takes the lock itself.
            if names["body"].__class__ is bytes and names.get("lock") is None:
                return True
        frame = frame.f_back
    return False


def _only(data: bytes, max_frame_bytes: int) -> Frame | None:
    """Return the one frame that this is, if it is one without attachments: nearly always."""
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
    """The worker's end of the socket, and the only place that reads it.

    `pending` holds whole frames that came along with an earlier one; they are served before the socket is read. Only
    the main thread reads. Any thread may write once `shared` is set, which makes all writes happen under `lock`.
    """

    __slots__ = (
        "_incoming",
        "_late",
        "_poll",
        "_tail",
        "_wanted",
        "_writing_late",
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
        # What `receive` raises when its turn comes, seen by a read that did not wait.
        self.broken: ProtocolError | None = None
        self.shared = False  # more threads than the main one may write
        self.lock = RLock()
        self.writing = False
        # Frames that were to be sent in the middle of another, by the same thread: kind, call id, body, number.
        self._late: list[tuple[int, int, bytes | Encoded, int]] = []
        self._writing_late = False
        self._tail: Buffer = b""
        self._wanted = 0  # bytes of tail below which it holds no whole frame
        self._incoming: _Incoming | None = None  # of a large frame; there is no tail then
        self._poll = poll()
        self._poll.register(fd, POLLIN)

    def abandon(self) -> None:
        """Close this process's copy of the socket: for a forked child, which must not answer for us."""
        fd, self.fd = self.fd, -1
        self.writing = False
        self._late.clear()
        self._writing_late = False
        self.lock = RLock()  # a thread that the child does not have may hold the other one
        self.pending.clear()
        if self.fd_socket >= 0:
            os.close(self.fd_socket)
            self.fd_socket = -1
        if fd >= 0:
            os.close(fd)

    def mute(self) -> None:
        """Let what is still sent go nowhere, because the host has closed its end."""
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self.fd, inheritable=False)
        os.close(null)

    def wait(self) -> None:
        """Wait until there is something to read. A signal handler may raise here: nothing is lost by it."""
        self._poll.poll()

    def is_readable(self) -> bool:
        """Tell whether a read would not wait."""
        return bool(self._poll.poll(0))

    def fetch(self) -> None:
        """Take in what has arrived, without waiting for more. Whole frames become pending, the rest is kept."""
        while self.fd >= 0 and self.broken is None and self.is_readable() and self.read_some():
            pass

    def read_some(self) -> bool:
        """Read once, for whole frames to become pending; False at the end of the stream."""
        if self._incoming is not None:
            return self._read_on(self._incoming)
        tail = self._tail
        data = _read(self.fd, _READ_BYTES)
        if not data:
            return False
        if not tail:
            frame = _only(data, self.max_frame_bytes)
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
        """Whether the beginning of a frame has come, but not its end."""
        return bool(self._tail) or self._incoming is not None

    def check_end(self) -> None:
        """Raise if the stream has ended where it should not."""
        if self.in_mid_frame:
            raise ConnectionError(_IN_MID_FRAME)

    def receive(self) -> Frame | None:
        """Wait for the next frame; None when the host closed the socket between two frames."""
        if self.pending:
            return self.pending.pop(0)
        if self._tail or self._incoming is not None:
            return self._assemble()
        data = _read(self.fd, _READ_BYTES)
        frame = _only(data, self.max_frame_bytes)
        if frame is not None:
            return frame
        if not data:
            return None
        self._tail = data
        self._split()
        return self._assemble()

    def _assemble(self) -> Frame:
        """Read until there is a whole frame, and return it."""
        while not self.pending:
            if self.broken is not None:
                raise self.broken
            if not self.read_some():
                raise ConnectionError(_IN_MID_FRAME)
        return self.pending.pop(0)

    def _read_on(self, incoming: _Incoming) -> bool:
        """Read once for a large frame; False at the end of the stream."""
        if not incoming.is_whole and not incoming.read(self.fd):
            return False
        if incoming.is_whole:
            try:
                self.pending.append(self._complete(incoming.frame()))
                self._incoming = None
            except ProtocolError as error:
                self.broken = error.with_traceback(None)
        return True

    def _complete(self, frame: Frame) -> Frame:
        """Receive what is in memfds."""
        if not frame[5] or int not in map(type, frame[5]):
            return frame
        if self.fd_socket < 0:
            raise ProtocolError("a memfd was announced, but there is no socket for it")
        from hatchery import _memfds

        return *frame[:5], _memfds.receive(self.fd_socket, frame[3], frame[5])

    def _split(self, at: int = 0) -> None:
        """Queue the whole frames that stand in the tail from `at` on."""
        data, pending = self._tail, self.pending
        view = memoryview(data)
        self._wanted = 0
        try:
            if len(data) <= _READ_BYTES:  # small ones are copied, which is cheaper than to keep views of them
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
                        break  # what follows says what is the matter with it
                    pending.append((kind, JSON, number, call_id, bytes(data[at + _HEAD_BYTES : end]), ()))
                    at = end
            while len(view) - at >= _PREFIX_BYTES:
                end = at + _PREFIX_BYTES + self._length(view, at)
                if end > len(view):
                    begun = view[at + _PREFIX_BYTES :]
                    if end - at <= _READ_BYTES:
                        self._wanted = end - at
                    elif _Incoming.can_begin(begun):
                        self._incoming = _Incoming(begun, end - at - _PREFIX_BYTES)
                        at = len(view)
                    break
                pending.append(self._complete(decode(view[at + _PREFIX_BYTES : end])))
                at = end
        except ProtocolError as error:
            self.broken = error.with_traceback(None)  # raised when its turn comes
        finally:  # a signal may come where the recursion is too deep for this, and nothing must be queued twice
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
        """Write one frame. Raises `FrameTooLargeError` before anything is written."""
        if body.__class__ is not bytes:
            from hatchery import _memfds

            _memfds.send(self, kind, call_id, body)  # type: ignore[arg-type]  # a compared class narrows no type
            return
        size = HEADER_BYTES + len(body)
        if size > self.max_frame_bytes:
            raise FrameTooLargeError(size, self.max_frame_bytes)
        head = _pack_prefixed(size, kind, JSON if body else NO_BODY, 0, number, call_id, len(body))
        lock = self.lock if self.shared else None  # it costs as much as packing the head
        if lock is not None:
            lock.acquire()
            if self.writing:  # a signal handler, or a `__del__`, in the middle of a frame of this very thread
                self.send_later(kind, call_id, body, number)
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
                self.send_late()

    def share(self, main_ident: int) -> None:
        """Have all writes happen under `lock`, before another thread than the main one writes for the first time."""
        if self.shared:
            return
        with self.lock:
            self.shared = True
            while _writes_without_lock(main_ident):  # it began before
                sleep(_LOOK_SECONDS)

    def send_later(self, kind: int, call_id: int, body: bytes | Encoded, number: int) -> None:
        """Keep a frame until the one that this thread is writing is whole. Call it under `lock`."""
        if len(self._late) < _MOST_LATE:
            self._late.append((kind, call_id, body, number))

    def send_late(self) -> None:
        """Write what had to wait, in its order."""
        if not self._late:
            return
        with self.lock:  # another thread may be about to do the same
            if self._writing_late:
                return  # this one is, and has come here from below
            self._writing_late = True
            try:
                while self._late:
                    self.send(*self._late.pop(0))
            finally:
                self._writing_late = False

    def _write_rest(self, rest: memoryview) -> None:
        while rest:
            rest = rest[_write(self.fd, rest) :]
