"""Bytes that no host should send: random ones, and golden frames that are cut, joined and damaged.

Failures name the seed; HATCHERY_SEED replays it.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import time
import unittest

from hatchery import _wire
from tests.support import GOLDEN, Worker, frame

MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
SECONDS = float(os.environ.get("HATCHERY_FUZZ_SECONDS", "1"))  # for each test
MODULE = """
import hatchery, time

def echo(*args, **kwargs):
    return [args, kwargs]

def count(end):
    for number in range(min(end, 100)):
        hatchery.progress(number)
        yield number

async def wait():
    import asyncio
    await asyncio.sleep(0.001)

async def count_async(end):
    for number in range(min(end, 100)):
        yield number
"""


def golden(*kinds: str) -> list[bytes]:
    entries = [entry for entry in MANIFEST["frames"] if not kinds or entry["kind"] in kinds]
    return [bytes.fromhex((GOLDEN / f"{entry['name']}.hex").read_text()) for entry in entries]


def calls() -> list[bytes]:
    """Frames of which most are good: a worker that refuses all of them would show nothing."""
    bodies: list[object] = [
        ["echo", [1, "two"], {"three": 4}],
        ["echo", None, None, {"session": "alice"}],
        ["count", [5], None, {"credit": 3, "progress": True}],
        ["count_async", [5], None, {"credit": 2}],
        ["wait", None, None, {}],
        ["no_such_function", None, None],
    ]
    frames = [frame(_wire.CALL, json.dumps(body).encode(), call_id=at + 1) for at, body in enumerate(bodies)]
    frames += [frame(_wire.CREDIT, call_id=at, number=2) for at in (3, 4, 99)]
    frames += [frame(_wire.CANCEL, call_id=at) for at in (1, 3, 4, 5, 99)]
    frames += [frame(_wire.STACK, call_id=at) for at in (4, 5, 99)]
    ended = json.dumps({"session": "alice", "cause": "ended"}).encode()
    frames.append(frame(_wire.SESSION_END, ended, call_id=50))
    return frames


def damaged(rng: random.Random, parts: list[bytes]) -> bytes:
    """Join some of the parts, and do things to them."""
    data = bytearray(b"".join(rng.choices(parts, k=rng.randint(1, 6))))
    for _ in range(rng.choices((0, 1, 2, 3), (3, 5, 2, 1))[0]):
        at = rng.randrange(len(data)) if data else 0
        what = rng.randrange(6)
        if what == 0:
            data[at : at + 1] = bytes([rng.choice([0, 1, 255, rng.randrange(24), rng.randrange(256)])])
        elif what == 1 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 6))
        elif what == 3:
            del data[at : at + rng.randint(1, 40)]
        elif what == 4:
            data += data[at : at + rng.randint(1, 80)]
        elif what == 5:
            del data[at:]
    return bytes(data)


class Fuzz(unittest.TestCase):
    def setUp(self) -> None:
        self.seed = int(os.environ.get("HATCHERY_SEED") or random.randrange(1 << 32))
        self.rng = random.Random(self.seed)
        self.end = time.monotonic() + SECONDS

    def rounds(self):
        number = 0
        while not number or time.monotonic() < self.end:
            number += 1
            with self.subTest(seed=self.seed, round=number):
                yield number

    def test_a_payload_is_a_frame_or_a_protocol_error(self) -> None:
        payloads = [data[4:] for data in golden()]
        for _ in self.rounds():
            for _ in range(100):
                rng = self.rng
                payload = damaged(rng, payloads) if rng.random() < 0.9 else rng.randbytes(rng.randrange(100))
                try:
                    decoded = _wire.decode(memoryview(payload))
                except _wire.ProtocolError:
                    continue
                *_, body, attachments = decoded
                described = (
                    _wire.HEADER_BYTES
                    + len(body)
                    + sum(8 + (0 if type(part) is int else len(part)) for part in attachments)
                )
                self.assertEqual(described, len(payload), payload)

    def test_a_stream_in_any_pieces_is_the_same_frames(self) -> None:
        frames = golden()
        for _ in self.rounds():
            data = damaged(self.rng, frames)
            whole = self.read([data])
            cuts = sorted(self.rng.randrange(len(data) + 1) for _ in range(self.rng.randrange(8)))
            pieces = [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)])]
            self.assertEqual(self.read(pieces), whole, data)

    def read(self, pieces: list[bytes]) -> list[object]:
        """Return the frames, and last how they end."""
        host, worker = socket.socketpair()
        with host, worker:
            channel = _wire.Channel(worker.fileno(), max_frame_bytes=65536)
            read: list[object] = []
            try:
                for piece in pieces:
                    host.sendall(piece)
                host.shutdown(socket.SHUT_WR)
                while True:
                    received = channel.receive()
                    if received is None:
                        return [*read, "end"]
                    kind, codec, number, call_id, body, attachments = received
                    read.append((kind, codec, number, call_id, bytes(body), tuple(map(bytes, attachments))))
            except (_wire.ProtocolError, ConnectionError) as error:
                return [*read, type(error).__name__]

    def test_a_worker_stays_in_step_or_says_what_was_wrong(self) -> None:
        parts = calls() + golden("hello", "result", "shutdown")
        for _ in self.rounds():
            # A call behind it, whose id rises still, and the end: whoever waits for the rest of a frame has it.
            data = damaged(self.rng, parts) + frame(_wire.CALL, b'["echo",["last"],null]', call_id=1 << 62)
            with Worker(MODULE, max_frame_bytes=65536) as worker:
                worker.ready()
                worker.send(data)
                worker.sock.shutdown(socket.SHUT_WR)
                answers = self.answers(worker)
                code = worker.end()
                self.check(data, answers, code, worker.printed["stderr"])

    def check(self, data: bytes, answers: list[tuple[int, int, object]], code: int, stderr: bytes) -> None:
        said = (data, answers, code, stderr)
        self.assertNotIn(b"Traceback", stderr, said)
        self.assertIn(code, (0, _wire.EXIT_CONNECTION, _wire.EXIT_PROTOCOL), said)
        if code == _wire.EXIT_PROTOCOL:
            self.assertEqual(answers[-1][:2], (_wire.ERROR, 0), said)
            self.assertEqual(answers.pop()[2]["kind"], "protocol", said)
        # What was asked is answered once at most, and nothing else is.
        asked = self.read([data])
        ids = [received[3] for received in asked[:-1] if received[0] in (_wire.CALL, _wire.SESSION_END)]
        for kind, call_id, _ in answers:
            self.assertIn(call_id, ids, said)
            if kind in (_wire.RESULT, _wire.ERROR, _wire.END):
                ids.remove(call_id)
        # Until the end all of it is, but for streams and tasks, which the end interrupts.
        kinds = [received[0] for received in asked[:-1]]
        bodies = b"".join(received[4] for received in asked[:-1])
        if code == 0 and _wire.SHUTDOWN not in kinds and b"count" not in bodies and b"wait" not in bodies:
            self.assertEqual((asked[-1], ids), ("end", []), said)

    def answers(self, worker: Worker) -> list[tuple[int, int, object]]:
        """Return all frames up to the end."""
        data = bytearray()
        while True:
            part = worker.sock.recv(65536)
            if not part:
                break
            data += part
        answers = []
        while data:
            length, kind, codec, count, _, call_id, size = struct.unpack_from(">IBBHIQI", data)
            self.assertEqual((count, size, codec), (0, length - 20, int(size > 0)), data[:40])
            self.assertIn(kind, (_wire.RESULT, _wire.ERROR, _wire.CHUNK, _wire.END, _wire.PROGRESS, _wire.STACK))
            body = bytes(data[24 : 4 + length])
            answers.append((kind, call_id, json.loads(body) if body else None))
            del data[: 4 + length]
        return answers


if __name__ == "__main__":
    unittest.main()
