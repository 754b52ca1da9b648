"""The memfds that large attachments travel in, on a socket of their own, ahead of the frame that they belong to.

This module is imported when the first bytes come or go.
"""

from __future__ import annotations

import _socket  # the rest of `socket` is not needed
import os
from array import array
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

    from hatchery._attachments import Encoded

LEAST_MEMFD_BYTES = 1024 * 1024
MOST_MEMFDS = 250

_CALL_ID = Struct(">Q")
_MOST_PIECES = 512  # the kernel writes 1024 at once
_sockets: dict[int, _socket.socket] = {}


def _connected(fd: int) -> _socket.socket:
    if fd not in _sockets:
        _sockets[fd] = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
    return _sockets[fd]


def receive(fd_socket: int, call_id: int, attachments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the attachments of a frame with the memfds among them mapped, which are lengths so far."""
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
            raise _wire.ProtocolError("the memfds of a frame did not come before it") from None
        for level, kind, rights in parts:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                fds.extend(array("i", rights[: len(rights) // 4 * 4]))
        if flags & _socket.MSG_CTRUNC:
            raise _wire.ProtocolError("memfds got lost: this process has too many open files")
        if data != _CALL_ID.pack(call_id) or len(fds) != awaited:
            raise _wire.ProtocolError("the memfds that came belong to another frame")
        mapped = iter([_map(fd, length) for fd, length in zip(fds, filter(_is_length, attachments))])
        return tuple(next(mapped) if _is_length(part) else part for part in attachments)
    finally:
        for fd in fds:
            os.close(fd)


def _is_length(part: Any) -> bool:
    return type(part) is int


def _map(fd: int, length: int) -> memoryview:
    """Map a memfd of the host's. The mapping lives as long as any view of it."""
    from mmap import MAP_PRIVATE, PROT_READ, mmap

    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:
        sealed = False
    if not sealed or os.fstat(fd).st_size < length:
        raise _wire.ProtocolError("a memfd is not sealed, or shorter than it is said to be")
    if not length:
        return memoryview(b"")
    try:
        return memoryview(mmap(fd, length, MAP_PRIVATE, PROT_READ))
    except (OSError, ValueError, OverflowError) as error:
        raise _wire.ProtocolError(f"a memfd cannot be mapped: {error}") from error


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
    """Write a frame with attachments. Raises `FrameTooLargeError` before anything is written."""
    attachments = body.attachments
    large: list[int] = []
    if _MEMFD_FLAGS and channel.fd_socket >= 0:
        large = [index for index, data in enumerate(attachments) if len(data) >= LEAST_MEMFD_BYTES][:MOST_MEMFDS]
    _check_size(channel, body, large)
    fds: list[int] = []
    try:
        try:
            for index in large:
                fds.append(_memfd_of(attachments[index]))  # noqa: PERF401 - those before a failure must be closed
        except OSError:
            large = _none_large(channel, body)
        with channel.lock:  # the memfds of frames come in the order of the frames
            if channel.writing:  # a `__del__`, or a signal handler, in the middle of a frame of this very thread
                channel.send_later(kind, call_id, body, 0)
                return
            channel.writing = True
            try:
                if large and not _send_memfds(channel, call_id, fds):
                    large = _none_large(channel, body)
                _write_frame(channel.fd, kind, call_id, body, set(large))
            finally:
                channel.writing = False
        channel.send_late()
    finally:
        for fd in fds:
            os.close(fd)


def _send_memfds(channel: _wire.Channel, call_id: int, fds: list[int]) -> bool:
    """Send the descriptors ahead of their frame; False when the kernel takes no more."""
    try:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", fds))
        socket = _connected(channel.fd_socket)
        socket.sendmsg([_CALL_ID.pack(call_id)], [rights], _socket.MSG_NOSIGNAL)
    except ConnectionError:
        raise
    except OSError:
        return False
    return True


def _none_large(channel: _wire.Channel, body: Encoded) -> list[int]:
    """Send all of it within the frame: the kernel has no more descriptors, or no more memory for them."""
    _check_size(channel, body, [])
    return []


def _write_frame(fd: int, kind: int, call_id: int, body: Encoded, large: set[int]) -> None:
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
    """Write pieces one after the other, without joining them."""
    at = 0
    while at < len(pieces):
        written = os.writev(fd, pieces[at : at + _MOST_PIECES])
        while at < len(pieces) and written >= len(pieces[at]):
            written -= len(pieces[at])
            at += 1
        if written:
            pieces[at] = memoryview(pieces[at])[written:]
