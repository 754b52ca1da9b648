"""Frames: the golden ones, which the Rust tests read too, and streams of them in any pieces."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import threading
import unittest
from unittest import mock

from hatchery import _wire
from tests.support import GOLDEN, frame

MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
KINDS = {
    "hello": 1, "ready": 2, "call": 3, "result": 4, "error": 5, "chunk": 6, "end": 7, "cancel": 8, "credit": 9,
    "host_call": 10, "host_result": 11, "log": 12, "session_end": 15, "shutdown": 16, "progress": 17, "stack": 18,
    "host_cancel": 19,
}  # fmt: skip
SENT = ("ready", "result", "error", "chunk", "end", "progress", "stack", "host_call", "host_cancel", "log")
CODECS = {"none": 0, "json": 1}


def golden(name: str) -> bytes:
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text())


def plain(decoded) -> tuple:
    *header, body, attachments = decoded
    return (*header, bytes(body), tuple(part if type(part) is int else bytes(part) for part in attachments))


def encode(decoded) -> bytes:
    kind, codec, number, call_id, body, attachments = decoded
    lengths = [part | 1 << 63 if type(part) is int else len(part) for part in attachments]
    attachments = [part for part in attachments if type(part) is not int]
    header = struct.pack(">BBHIQI", kind, codec, len(lengths), number, call_id, len(body))
    payload = b"".join((header, struct.pack(f">{len(lengths)}Q", *lengths), body, *attachments))
    return struct.pack(">I", len(payload)) + payload


def attachment(text: str):
    """Return the bytes, or of one in a memfd, its length."""
    return int(text[6:]) if text.startswith("memfd:") else bytes.fromhex(text)


class Pair:
    """A channel, and the host's end of its socket."""

    def __init__(self, **options) -> None:
        self.host, self.worker = socket.socketpair()
        self.host.settimeout(20)
        self.channel = _wire.Channel(self.worker.fileno(), **options)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.host.close()
        self.worker.close()


class GoldenFrames(unittest.TestCase):
    def test_decode_and_encode(self) -> None:
        for entry in MANIFEST["frames"]:
            with self.subTest(entry["name"]), Pair() as pair:
                data = golden(entry["name"])
                expected_parts = tuple(map(attachment, entry["attachments"]))
                if int in map(type, expected_parts):  # the memfds are of no interest here
                    received = plain(_wire.decode(memoryview(data)[4:]))
                else:
                    pair.host.sendall(data)
                    received = plain(pair.channel.receive())
                expected = (
                    KINDS[entry["kind"]],
                    CODECS[entry["codec"]],
                    entry["number"],
                    entry["call_id"],
                    (entry["body"] or "").encode(),
                    expected_parts,
                )
                self.assertEqual(received, expected)
                self.assertEqual(encode(received), data)

    def test_what_a_worker_sends(self) -> None:
        for entry in MANIFEST["frames"]:
            parts = [*map(attachment, entry["attachments"])]
            if entry["kind"] not in SENT or int in map(type, parts):
                continue
            with self.subTest(entry["name"]), Pair() as pair:
                body = (entry["body"] or "").encode()
                body = _wire.Encoded(body, parts) if parts else body
                pair.channel.send(KINDS[entry["kind"]], entry["call_id"], body, entry["number"])
                self.assertEqual(pair.host.recv(1 << 20), golden(entry["name"]))

    def test_refusals(self) -> None:
        for entry in MANIFEST["refused"]:
            with self.subTest(entry["name"]), Pair() as pair:
                pair.host.sendall(golden(entry["name"]))
                with self.assertRaises(_wire.ProtocolError):
                    pair.channel.receive()


class Streams(unittest.TestCase):
    def test_any_pieces(self) -> None:
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        for _ in range(30):
            sent = []
            for call_id in range(chance.randrange(1, 12)):
                body = b"1" * chance.choice([0, 1, 10, 100, 70_000])
                sent.append((chance.choice([3, 4]), 1, 7, call_id, body, (b"abc",) * chance.choice([0, 0, 2])))
            stream = b"".join(map(encode, sent))
            pieces = []
            while stream:
                size = chance.choice([1, 3, 4, 24, 1000, 100_000])
                pieces.append(stream[:size])
                stream = stream[size:]
            with self.subTest(seed=seed), Pair() as pair:

                def write(pair=pair, pieces=pieces) -> None:
                    for piece in pieces:
                        pair.host.sendall(piece)
                    pair.host.shutdown(socket.SHUT_WR)

                writer = threading.Thread(target=write, daemon=True)
                writer.start()
                received = [plain(pair.channel.receive()) for _ in sent]
                self.assertEqual(received, sent)
                self.assertIsNone(pair.channel.receive())
                writer.join(20)

    def test_frames_that_come_together_are_pending(self) -> None:
        with Pair() as pair:
            pair.host.sendall(b"".join(frame(3, b"null", call_id=call_id) for call_id in (1, 2, 3)) + b"\0\0")
            self.assertEqual(pair.channel.receive()[3], 1)
            self.assertEqual([waiting[3] for waiting in pair.channel.pending], [2, 3])
            self.assertEqual([pair.channel.receive()[3] for _ in "23"], [2, 3])
            pair.host.sendall(frame(16)[2:])
            self.assertEqual(pair.channel.receive()[0], 16)

    def test_an_end_in_the_middle_of_a_frame(self) -> None:
        whole = frame(3, b'["f",null,null]')
        for cut in range(1, len(whole)):
            with self.subTest(cut), Pair() as pair:
                pair.host.sendall(whole[:cut])
                pair.host.shutdown(socket.SHUT_WR)
                with self.assertRaises(ConnectionError):
                    pair.channel.receive()

    def test_any_bytes(self) -> None:
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        for _ in range(500):
            payload = bytes([chance.randrange(20), chance.randrange(3)]) + bytes(
                chance.choices(range(256), k=chance.randrange(60))
            )
            with self.subTest(seed=seed):
                try:
                    decoded = _wire.decode(payload)
                except _wire.ProtocolError:
                    continue
                self.assertEqual(encode(decoded)[4:], payload)

    def test_the_limit_is_inclusive(self) -> None:
        with Pair(max_frame_bytes=25) as pair:
            pair.channel.send(4, 1, b"12345")
            with self.assertRaises(_wire.FrameTooLargeError) as caught:
                pair.channel.send(4, 1, b"123456")
            self.assertEqual((caught.exception.size, caught.exception.limit), (26, 25))
            pair.host.sendall(frame(3, b"12345") + frame(3, b"123456"))
            self.assertEqual(pair.channel.receive()[0], 3)
            with self.assertRaises(_wire.ProtocolError):
                pair.channel.receive()

    def test_large_replies_arrive_whole(self) -> None:
        for size in (16_000, 16_364, 17_000, 5_000_000):
            with self.subTest(size), Pair() as pair:
                body = os.urandom(size)
                sender = threading.Thread(target=pair.channel.send, args=(4, 9, body), daemon=True)
                sender.start()
                data = bytearray()
                while len(data) < size + 24:
                    data += pair.host.recv(1 << 20)
                sender.join(20)
                self.assertEqual(data, frame(4, body, call_id=9))

    def exactly(self, pair: Pair, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += pair.host.recv(size - len(data))
        return data

    def test_deferred_frames_are_sent_in_order(self) -> None:
        with Pair() as pair:
            pair.channel.shared = True
            for n in range(1000):
                pair.channel.defer_frame(17, n, b"late", 0)
            sender = threading.Thread(target=pair.channel.send, args=(4, 9, b"first"), daemon=True)
            sender.start()
            expected = frame(4, b"first", call_id=9) + b"".join(frame(17, b"late", call_id=n) for n in range(1000))
            self.assertEqual(self.exactly(pair, len(expected)), expected)
            sender.join(20)

    def test_second_thread_does_not_write_into_an_open_frame(self) -> None:
        began, other_waits = threading.Event(), threading.Event()

        def write_half(fd: int, data: bytes) -> int:
            if began.is_set():
                return os.write(fd, data)
            written = os.write(fd, data[:20])
            began.set()
            self.assertTrue(other_waits.wait(20))
            return written

        with Pair() as pair:
            channel, main_ident = pair.channel, threading.get_ident()

            def share() -> None:
                began.wait(20)
                channel.share(main_ident)
                channel.send(17, 2, b"other")

            threads = [threading.Thread(target=share, daemon=True) for _ in range(2)]
            sleep = mock.Mock(side_effect=lambda _: other_waits.set())
            with mock.patch.multiple(_wire, _write=write_half, sleep=sleep):
                for thread in threads:
                    thread.start()
                channel.send(4, 9, b"first")
                for thread in threads:
                    thread.join(20)
            channel.share(main_ident)
            expected = frame(4, b"first", call_id=9) + 2 * frame(17, b"other", call_id=2)
            self.assertEqual(self.exactly(pair, len(expected)), expected)

    def test_two_threads_send_deferred_frames_once(self) -> None:
        both = threading.Barrier(2)
        looks = iter(range(2))

        class Late(list):
            def __bool__(self) -> bool:
                some = len(self) > 0
                if next(looks, None) is not None:
                    both.wait(20)
                return some

        with Pair() as pair:
            channel, failed = pair.channel, []
            channel.shared = True
            channel._deferred = Late([(17, 1, b"late", 0)])

            def send() -> None:
                try:
                    channel.send(4, 9, b"first")
                except BaseException as error:
                    failed.append(error)

            threads = [threading.Thread(target=send, daemon=True) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            self.assertEqual(failed, [])
            expected = frame(4, b"first", call_id=9) * 2 + frame(17, b"late", call_id=1)
            self.assertEqual(self.exactly(pair, len(expected)), expected)


if __name__ == "__main__":
    unittest.main()
