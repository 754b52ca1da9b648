"""Sends and receives memfds: large attachments, sent on a second socket before their frame. `_wire` uses this module.

It is imported with the first attachment.
"""

from __future__ import annotations

import _socket  # the rest of `socket` is not needed
import os
import sys
from array import array
from mmap import MAP_PRIVATE, PROT_READ, mmap
from struct import Struct

from hatchery import _wire

try:
    import fcntl

    _SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    _MEMFD_FLAGS = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
except (ImportError, AttributeError):  # built for an old C library
    _MEMFD_FLAGS = 0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from hatchery._wire import Encoded

MIN_MEMFD_BYTES = 1024 * 1024
MAX_MEMFDS = 250
# A memfd costs more time than the socket, but does not block the other end and is in memory only once. So memfds are
# used when a frame would be larger than this, or larger than the host's limit.
MAX_INLINE_BYTES = 32 * 1024 * 1024

_ALIGNMENT = 16
_CALL_ID = Struct(">Q")
_sockets: dict[int, _socket.socket] = {}


class Mapping(mmap):
    """A mapped memfd of the host. A result that is the whole of it sends the memfd back without a copy."""

    __slots__ = ("fd", "file")

    fd: int  # the mapping's own descriptor, unless another thread took the number
    file: tuple[int, int]  # device and inode, by which `fd` is checked


def _connected(fd: int) -> _socket.socket:
    socket = _sockets.get(fd)
    if socket is None:
        made = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        socket = _sockets.setdefault(fd, made)
        if socket is not made:  # another thread was faster
            made.detach()  # its destructor would close the descriptor
    return socket


def receive(fd_socket: int, call_id: int, attachments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Receive and map the memfds of a frame. Lengths stand for them in `attachments`; returns the attachments."""
    awaited = sum(type(length) is int for length in attachments)
    if not awaited:
        return attachments
    fds: list[int] = []
    try:
        try:
            data, parts, flags, _ = _connected(fd_socket).recvmsg(
                16, _socket.CMSG_SPACE(4 * 253), _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            raise _wire.ProtocolError("a frame came before its memfds") from None
        for level, kind, rights in parts:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                fds.extend(array("i", rights[: len(rights) // 4 * 4]))
        if data != _CALL_ID.pack(call_id):
            raise _wire.ProtocolError("the memfds that came belong to another frame")
        if flags & _socket.MSG_CTRUNC:
            lost = _wire.UnmappedError(
                "the memfds of a call got lost: this process has too many open files; raise the limit"
            )
            return tuple(lost if _is_length(part) else part for part in attachments)
        if len(fds) != awaited:
            raise _wire.ProtocolError("the memfds that came belong to another frame")
        mapped = iter([_map(fd, length) for fd, length in zip(fds, filter(_is_length, attachments))])
        return tuple(next(mapped) if _is_length(part) else part for part in attachments)
    finally:
        for fd in fds:
            os.close(fd)


def _is_length(part: Any) -> bool:
    return type(part) is int


def _map(fd: int, length: int) -> memoryview | _wire.UnmappedError:
    """Map a memfd of the host. The mapping lives as long as any view of it.

    Returns the error when this process lacks memory or descriptors for it, because that fails one call only.
    """
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:
        sealed = False
    status = os.fstat(fd)
    if not sealed or status.st_size < length:
        raise _wire.ProtocolError("a memfd is not sealed, or shorter than its frame says")
    if not length:
        return memoryview(b"")
    try:
        spare = os.dup(fd)
        os.close(spare)  # the mapping copies the descriptor, and the copy gets this free number
        mapping = Mapping(fd, length, MAP_PRIVATE, PROT_READ)
    except (OSError, ValueError, OverflowError) as error:
        return _wire.UnmappedError(f"{length} bytes that came in a memfd cannot be mapped: {error}")
    mapping.fd, mapping.file = spare, (status.st_dev, status.st_ino)
    return memoryview(mapping)


def _of_host(data: Any) -> int | None:
    """Return a memfd of the host that holds exactly these bytes, as a new descriptor; None if there is none."""
    owner: Any = data.obj if type(data) is memoryview else None
    numpy = sys.modules.get("numpy")
    array_type = getattr(numpy, "ndarray", None)
    while owner is not None and type(owner) is not Mapping:
        kind = type(owner)
        owner = owner.base if kind is array_type else owner.obj if kind is memoryview else None
    if owner is None or len(owner) != len(data):
        return None
    try:
        fd = os.dup(owner.fd)
    except OSError:
        return None
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) == owner.file and status.st_size == len(data):
        return fd
    os.close(fd)  # another thread took the number
    return None


def _memfd_of(data: Any) -> int:
    """Return a sealed memfd with these bytes."""
    fd = os.memfd_create("hatchery", _MEMFD_FLAGS)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def send(channel: _wire.Channel, kind: int, call_id: int, body: Encoded) -> None:
    """Write a frame with attachments. Raises `FrameTooLargeError` before it writes."""
    fds: dict[int, int] = {}  # by index of the attachment
    if any(len(data) >= MIN_MEMFD_BYTES for data in body.attachments):
        # Align the first attachment: the host reads numbers in place.
        body.json += b" " * (-(_wire.HEADER_BYTES + 8 * len(body.attachments) + len(body.json)) % _ALIGNMENT)
    try:
        if _MEMFD_FLAGS and channel.fd_socket >= 0:
            _fill(channel, body, fds)
        _check_size(channel, body, fds)
        with channel.lock:  # memfds must come in the order of their frames
            if channel.writing:  # a signal handler or `__del__` interrupted this thread in the middle of a frame
                channel.defer_frame(kind, call_id, body, 0)
                return
            channel.writing = True
            try:
                inline = not fds or not _send_memfds(channel, call_id, [fds[index] for index in sorted(fds)])
                if inline and fds:  # the kernel lacks descriptors or memory
                    _check_size(channel, body, ())
                _write_frame(channel.fd, kind, call_id, body, () if inline else fds)
            finally:
                channel.writing = False
        channel.send_deferred()
    finally:
        for fd in fds.values():
            os.close(fd)


def _fill(channel: _wire.Channel, body: Encoded, fds: dict[int, int]) -> None:
    """Choose the attachments to send in memfds, and create these. Stops when the kernel lacks descriptors or memory."""
    large = [index for index, data in enumerate(body.attachments) if len(data) >= MIN_MEMFD_BYTES]
    for index in large[:MAX_MEMFDS]:
        fd = _of_host(body.attachments[index])
        if fd is not None:
            fds[index] = fd
    if _size(body, fds) <= min(channel.max_frame_bytes, MAX_INLINE_BYTES):
        return
    large = [index for index in large if index not in fds][: MAX_MEMFDS - len(fds)]
    _check_size(channel, body, {*large, *fds})
    try:
        for index in large:
            fds[index] = _memfd_of(body.attachments[index])
    except OSError:
        pass


def _send_memfds(channel: _wire.Channel, call_id: int, fds: list[int]) -> bool:
    """Send the descriptors before their frame; False when the kernel refuses."""
    try:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", fds))
        socket = _connected(channel.fd_socket)
        socket.sendmsg([_CALL_ID.pack(call_id)], [rights], _socket.MSG_NOSIGNAL)
    except ConnectionError:
        raise
    except OSError:
        return False
    return True


def _write_frame(fd: int, kind: int, call_id: int, body: Encoded, large: Collection[int]) -> None:
    attachments = body.attachments
    count = len(attachments)
    lengths = [len(data) | (1 << 63 if index in large else 0) for index, data in enumerate(attachments)]
    size = _size(body, large)
    head = Struct(f">IBBHIQI{count}Q").pack(size, kind, _wire.JSON, count, 0, call_id, len(body.json), *lengths)
    inline = [data for index, data in enumerate(attachments) if index not in large] if large else attachments
    _write_all(fd, [head, body.json, *inline])


def _size(body: Encoded, large: Collection[int]) -> int:
    inline = sum(map(len, body.attachments)) - sum(len(body.attachments[index]) for index in large)
    return _wire.HEADER_BYTES + 8 * len(body.attachments) + len(body.json) + inline


def _check_size(channel: _wire.Channel, body: Encoded, large: Collection[int]) -> None:
    size = _size(body, large)
    if size > channel.max_frame_bytes:
        raise _wire.FrameTooLargeError(size, channel.max_frame_bytes)


def _write_all(fd: int, pieces: list[Any]) -> None:
    """Write all pieces in order, without joining them."""
    at = 0
    while at < len(pieces):
        written = os.writev(fd, pieces[at : at + _wire.MAX_PIECES])
        while at < len(pieces) and written >= len(pieces[at]):
            written -= len(pieces[at])
            at += 1
        if written:
            pieces[at] = memoryview(pieces[at])[written:]
