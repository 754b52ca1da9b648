"""Starts workers the way the host does, and talks to them over the socket. Every wait has a deadline."""

from __future__ import annotations

import array
import fcntl
import json
import mmap
import os
import pathlib
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import typing
import unittest

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = HERE.parent / "hatchery"
STUB = (HERE.parent / "stub.py").read_text().strip()
BOOTSTRAP = (HERE.parent / "bootstrap.py").read_bytes()
PROBE = (HERE.parent / "probe.py").read_text()
GOLDEN = HERE.parents[2] / "tests" / "golden"
DEADLINE = float(os.environ.get("HATCHERY_TEST_DEADLINE", "20"))
# Runs all tests with workers that take several calls; each test still sends what it would send otherwise.
IN_FLIGHT = int(os.environ.get("HATCHERY_TEST_IN_FLIGHT") or "0")

HELLO, READY, CALL, RESULT, ERROR, CHUNK, END, CANCEL, CREDIT = range(1, 10)
HOST_CALL, HOST_RESULT, LOG = range(10, 13)
SESSION_END, SHUTDOWN, PROGRESS, STACK, HOST_CANCEL = range(15, 20)
CANCELLED = {"kind": "cancelled"}
F_SETSIG = 10  # of Linux; `fcntl` lacks it
# Whatever the host chooses; real-time signals, which are free.
CANCEL_SIGNAL, STACK_SIGNAL = signal.SIGRTMIN + 10, signal.SIGRTMIN + 11
_probed: dict[str, bytes] = {}


def sources() -> str:
    modules = {}
    for file in PACKAGE.glob("*.py"):
        name = "hatchery" if file.stem == "__init__" else f"hatchery.{file.stem}"
        modules[name] = file.read_text()
    return json.dumps(modules)


def run(python: str, program: str, sent: bytes) -> subprocess.CompletedProcess:
    """Run a program to its end that reads what the host sends."""
    ours, theirs = socket.socketpair()
    with (
        ours,
        subprocess.Popen(
            [python, "-c", program, "test"], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        theirs.close()

        def send() -> None:
            try:
                ours.sendall(sent)
                ours.shutdown(socket.SHUT_WR)
            except BrokenPipeError:
                pass  # it has ended

        sending = threading.Thread(target=send)
        sending.start()
        stdout, stderr = process.communicate(timeout=DEADLINE)
        sending.join(DEADLINE)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def probe(python: str, before: str = "") -> dict:
    done = run(python, before + PROBE, b"\n" + sources().encode())
    done.check_returncode()
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith("HATCHERY-PROBE ")]
    return json.loads(lines[-1].partition(" ")[2])


def sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def package() -> bytes:
    """Return what a worker of this interpreter reads behind the bootstrap, with its length."""
    if sys.executable not in _probed:
        _probed[sys.executable] = bytes.fromhex(probe(sys.executable)["package"])
    return sized(_probed[sys.executable])


def send_fds(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    """Send bytes and descriptors in one message."""
    assert sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]) == len(data)


def frame(kind: int, body: bytes = b"", *, call_id: int = 0, number: int = 0, codec: int | None = None) -> bytes:
    codec = (1 if body else 0) if codec is None else codec
    return struct.pack(">IBBHIQI", 20 + len(body), kind, codec, 0, number, call_id, len(body)) + body


class Worker:
    """One worker process, and the host's end of its socket."""

    def __init__(
        self,
        source: str,
        files: dict[str, str] | None = None,
        pass_fds: list[int] = [],  # noqa: B006
        *,
        own_session: bool = True,
        **hello,
    ) -> None:
        self.directory = tempfile.TemporaryDirectory()
        (pathlib.Path(self.directory.name) / "usermodule.py").write_text(textwrap.dedent(source))
        for name, text in (files or {}).items():
            (pathlib.Path(self.directory.name) / name).write_text(text)
        self.sock, child = socket.socketpair()
        self.sock.settimeout(DEADLINE)
        self.parent_death, held = socket.socketpair()
        self.memfds, fd_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stacks, stack_fd = os.pipe()
        in_flight = IN_FLIGHT if IN_FLIGHT and "threads" not in hello else None
        if in_flight is not None:
            hello = {"in_flight": in_flight, **hello}
        self.begun_memory: mmap.mmap | None = None
        begun = []
        if hello.get("in_flight", 1) > 1 or hello.get("threads"):
            begun = [os.memfd_create("begun")]
            os.ftruncate(begun[0], 16)
            self.begun_memory = mmap.mmap(begun[0], 16)
        send_fds(self.sock, sized(BOOTSTRAP), [stack_fd, held.fileno(), fd_socket.fileno(), *begun])
        self.process = subprocess.Popen(
            [sys.executable, "-c", STUB, "test-1"],
            stdin=child,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            cwd=self.directory.name,
            start_new_session=own_session,
            preexec_fn=None if own_session else os.setpgrp,  # noqa: PLW1509 - no thread of ours runs yet
        )
        # As the host does it: should this process be killed, its end of the parent-death socket ends the worker.
        fcntl.fcntl(held, F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(held, fcntl.F_SETOWN, -self.process.pid)
        fcntl.fcntl(held, fcntl.F_SETFL, os.O_ASYNC)
        for end in (child, held, fd_socket):
            end.close()
        for fd in [stack_fd, *begun]:
            os.close(fd)
        self._next_id = 0
        # Complete once the process has ended; `printed_so_far` tells what a running worker has printed.
        self.printed = {"stdout": b"", "stderr": b""}
        self._printed_lock = threading.Lock()
        self._drains = [threading.Thread(target=self._drain, args=(name,), daemon=True) for name in self.printed]
        for drain in self._drains:
            drain.start()
        self.hello = {
            "protocol": 1,
            "worker": "test-1",
            "module": "usermodule",
            "path": [self.directory.name],
            "functions": None,
            "max_frame_bytes": 1 << 26,
            "cancel_signal": CANCEL_SIGNAL,
            "stack_signal": STACK_SIGNAL,
            **hello,
        }
        self.sock.sendall(package() + frame(HELLO, json.dumps(self.hello).encode()))

    def begun(self) -> tuple[int, int]:
        """Return what the worker has marked: the largest id that has begun, and that of the call on the main thread."""
        return struct.unpack("QQ", self.begun_memory[:16])

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.process.kill()
        except ProcessLookupError:
            pass
        self.process.wait(DEADLINE)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # what the worker itself had started
        except ProcessLookupError:
            pass
        self.sock.close()
        self.parent_death.close()
        self.memfds.close()
        os.close(self.stacks)
        for drain in self._drains:
            drain.join(DEADLINE)
        self.process.stdout.close()
        self.process.stderr.close()
        self.directory.cleanup()

    def _drain(self, name: str) -> None:
        """Read a pipe to its end, on a thread of its own, so that the worker never waits for us."""
        fd = getattr(self.process, name).fileno()
        is_open = True
        while is_open:
            select.select([fd], [], [])
            with self._printed_lock:
                is_open = self._read_printed(name)

    def _read_printed(self, name: str) -> bool:
        """Read all that a pipe holds; False at its end. Call it under the lock."""
        fd = getattr(self.process, name).fileno()
        while select.select([fd], [], [], 0)[0]:
            data = os.read(fd, 65536)
            if not data:
                return False
            self.printed[name] += data
        return True

    def printed_so_far(self) -> dict[str, bytes]:
        """Return all that the worker has printed until now, also what the threads have not read yet.

        What the worker printed before it sent an answer is complete when that answer has arrived.
        """
        with self._printed_lock:
            for name in self.printed:
                self._read_printed(name)
            return dict(self.printed)

    def forget_printed(self) -> None:
        """Drop all that the worker has printed until now."""
        self.printed_so_far()
        with self._printed_lock:
            self.printed.update(stdout=b"", stderr=b"")

    def receive(self) -> tuple[int, int, object]:
        """Return kind, call id and decoded body of the next frame; None is the body of a frame without one."""
        kind, _, call_id, body = self.receive_whole()
        return kind, call_id, body

    def receive_whole(self) -> tuple[int, int, int, object]:
        """Return kind, number, call id and decoded body of the next frame."""
        (length,) = struct.unpack(">I", self._exactly(4))
        payload = self._exactly(length)
        kind, codec, count, number, call_id, size = struct.unpack_from(">BBHIQI", payload)
        assert (codec, count, size) == (size > 0, 0, length - 20), payload[:40]
        return kind, number, call_id, json.loads(payload[20:].decode()) if codec else None

    def serve_host_call(self, result: object = None, error: dict | None = None) -> tuple[int, list]:
        """Answer the host call that comes next; return its number and body."""
        kind, number, body = self.receive()
        assert kind == HOST_CALL, (kind, number, body)
        self.send_host_result(number, result, error)
        return number, body

    def send_host_result(self, number: int, result: object = None, error: dict | None = None) -> None:
        """Answer a host call."""
        body = json.dumps(result if error is None else {"kind": "host_call", **error}).encode()
        self.send(frame(HOST_RESULT, body, call_id=number, number=int(error is not None)))

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self.sock.recv(min(size - len(data), 1 << 20))
            if not part:
                raise EOFError(self.end())
            data += part
        return bytes(data)

    def ready(self) -> dict:
        kind, call_id, body = self.receive()
        assert (kind, call_id) == (READY, 0), body
        return body

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_calls(self, function: str, count: int) -> list[int]:
        """Send calls without arguments in one piece: sent one by one, they would wait for the worker, and it for us."""
        calls = range(self._next_id + 1, self._next_id + 1 + count)
        self._next_id += count
        body = json.dumps([function, None, None]).encode()
        self.send(b"".join(frame(CALL, body, call_id=call_id) for call_id in calls))
        return list(calls)

    def send_call(
        self, function: str, args: object = None, kwargs: object = None, *, timeout_ms: int = 0, **options
    ) -> int:
        self._next_id += 1
        call = [function, args, kwargs, *([options] if options else [])]
        self.send(frame(CALL, json.dumps(call).encode(), call_id=self._next_id, number=timeout_ms))
        return self._next_id

    def credit(self, call_id: int, items: int) -> None:
        self.send(frame(CREDIT, call_id=call_id, number=items))

    def cancel(self, call_id: int) -> None:
        self.send(frame(CANCEL, call_id=call_id))
        self.poke()

    def poke(self) -> None:
        """Send the signal that follows a cancel."""
        self.process.send_signal(CANCEL_SIGNAL)

    def remind(self, pause: float = 0.1) -> None:
        """Repeat the signal, as the host does after a cancel, until the worker says something."""
        end = time.monotonic() + DEADLINE
        while self.quiet(pause):
            assert time.monotonic() < end, "the worker says nothing"
            self.poke()

    def answer(self, call_id: int) -> tuple[int, object]:
        """Return kind and body of the next frame, which must be this call's."""
        kind, answered, body = self.receive()
        assert answered == call_id, (kind, answered, call_id, body)
        return kind, body

    def cancelled(self, call_id: int) -> object:
        """Cancel a call, and return its answer.

        The signal is repeated until then, as the host does it: Python does not see one that comes after it has looked
        for signals and before the system call in which it waits.
        """
        self.cancel(call_id)
        self.remind()
        return self.answer(call_id)[1]

    def items(self, call_id: int) -> tuple[list[object], int, object]:
        """Return the items of a stream until something else comes: kind and body of that."""
        items = []
        while True:
            kind, body = self.answer(call_id)
            if kind != CHUNK:
                return items, kind, body
            items.append(body)

    def quiet(self, seconds: float = 0.0) -> bool:
        """Tell whether the worker says nothing for so long."""
        return not select.select([self.sock], [], [], seconds)[0]

    def wait_for(self, name: str) -> None:
        """Wait until user code has made a file of this name in its directory."""
        path = pathlib.Path(self.directory.name) / name
        end = time.monotonic() + DEADLINE
        while not path.exists():
            assert time.monotonic() < end, name
            time.sleep(0.002)
        path.unlink()

    def touch(self, name: str) -> None:
        """Make a file that user code waits for."""
        (pathlib.Path(self.directory.name) / name).touch()

    def stack(self) -> str:
        """Ask for the running stack, and return what stands before our own frames, or all if there is none of ours."""
        while select.select([self.stacks], [], [], 0)[0] and os.read(self.stacks, 65536):
            pass  # of a signal whose stack nobody has read
        self.process.send_signal(STACK_SIGNAL)
        text = ""
        end = time.monotonic() + DEADLINE
        stack = ""
        while not re.search(r'  File "<string>", line 1 in <module>\n\Z', stack):  # that is the stub
            assert select.select([self.stacks], [], [], max(end - time.monotonic(), 0))[0], text
            text += os.read(self.stacks, 65536).decode()
            stack = text.rpartition("Stack (most recent call first):\n")[2]
        stack = stack.partition('  File "<hatchery>/')[0]
        files = [line.split('"')[1] for line in stack.splitlines()]
        # As the host does it: an event loop that waits is no user code.
        return "" if all(file.endswith("/selectors.py") or "/asyncio/" in file for file in files) else stack

    def call(self, function: str, *args: object, **kwargs: object) -> object:
        """Return the result, or the error's body as a dict with "kind"."""
        call_id = self.send_call(function, list(args) or None, kwargs or None)
        kind, answered, body = self.receive()
        assert answered == call_id, (answered, call_id)
        assert kind in (RESULT, ERROR)
        assert kind == RESULT or "kind" in body
        return body

    def refused(self) -> dict:
        """Return the body of the error sent in place of ready."""
        kind, call_id, body = self.receive()
        assert (kind, call_id) == (ERROR, 0), (kind, body)
        return body

    def end(self) -> int:
        """Wait for the end of the process, and return its exit code."""
        code = self.process.wait(DEADLINE)
        for drain in self._drains:
            drain.join(DEADLINE)
        return code

    def shutdown(self) -> int:
        self.send(frame(SHUTDOWN))
        return self.end()

    def closed(self) -> bool:
        """Wait for the worker to close its end."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            ready, _, _ = select.select([self.sock], [], [], 1)
            if ready and not self.sock.recv(65536):
                return True
        return False


class Shared(unittest.TestCase):
    """Tests that share one worker, which ends well and has printed nothing."""

    source: str
    files: typing.ClassVar[dict[str, str] | None] = None
    options: typing.ClassVar[dict[str, object]] = {}
    printed: typing.ClassVar[dict[str, bytes]] = {"stdout": b"", "stderr": b""}

    @classmethod
    def setUpClass(cls) -> None:
        cls.worker = Worker(cls.source, cls.files, **cls.options)
        cls.ready = cls.worker.ready()

    @classmethod
    def tearDownClass(cls) -> None:
        try:
            assert cls.worker.shutdown() == 0, cls.worker.printed
            assert cls.worker.printed == cls.printed, cls.worker.printed
        finally:
            cls.worker.__exit__()

    def call(self, function: str, *args: object, **kwargs: object) -> object:
        """Return the result, or the error's body."""
        return self.worker.call(function, *args, **kwargs)

    def send(self, function: str, *args: object, **options) -> int:
        """Send a call, and return its id."""
        return self.worker.send_call(function, list(args), **options)

    def answers(self, count: int) -> dict[int, object]:
        """Return the bodies of the next answers, each of another call, by their ids."""
        got = [self.worker.receive() for _ in range(count)]
        self.assertEqual(len({call_id for _, call_id, _ in got}), count)
        return {call_id: body for _, call_id, body in got}
