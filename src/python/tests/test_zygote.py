"""The template, asked as the host asks it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import unittest

from tests.support import CALL, DEADLINE, HELLO, LOG, READY, RESULT, SHUTDOWN, Worker, frame, send_fds

FORK, FORKED, REAP, EXITED = range(32, 36)
SOURCE = """
import os, sys

def where():
    return [os.getpid(), os.getppid(), os.getpgid(0), sorted(map(int, os.listdir('/proc/self/fd')))]

def print_it(text):
    print(text)

def leave(code):
    os._exit(code)
"""


class Forked:
    """A worker of a template, and the host's ends of what it was given."""

    def __init__(self, template: Worker, number: int, **hello: object) -> None:
        self.sock, channel = socket.socketpair()
        self.sock.settimeout(DEADLINE)
        self.parent_death, parent_death = socket.socketpair()
        pipes = [os.pipe() for _ in range(3)]
        self.stdout, self.stderr, self.stacks = (reading for reading, _ in pipes)
        self.memfds, fd_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs = [channel.fileno(), *(writing for _, writing in pipes), parent_death.fileno(), fd_socket.fileno()]
        begun = [os.memfd_create("begun")] if template.begun_memory is not None else []
        for fd in begun:
            os.ftruncate(fd, 16)
        theirs += begun
        request = frame(FORK, f"forked-{number}".encode(), call_id=number, number=len(theirs))
        send_fds(template.sock, request, theirs)
        channel.close()
        parent_death.close()
        fd_socket.close()
        for fd in [*(writing for _, writing in pipes), *begun]:
            os.close(fd)
        data, fds, _, _ = socket.recv_fds(template.sock, 4096, 1)
        kind, _, _, _, answered, size = struct.unpack_from(">BBHIQI", data, 4)
        assert (kind, answered, len(fds)) == (FORKED, number, 1), data
        self.pid = json.loads(data[24 : 24 + size])["pid"]
        self.pidfd = fds[0]
        hello = {**template.hello, "path": [], **hello}
        del hello["template"]
        self.sock.sendall(frame(HELLO, json.dumps(hello).encode()))
        kind, self.ready = self.receive()
        assert kind == READY, self.ready

    def receive(self) -> tuple[int, object]:
        data = self.sock.recv(1 << 16)
        (kind,) = struct.unpack_from(">B", data, 4)
        return kind, json.loads(data[24:])

    def logged(self) -> list[int]:
        """Return the levels of the records that come before the result."""
        levels = []
        data = b""
        while True:
            data += self.sock.recv(1 << 16)
            while len(data) >= 4 and len(data) >= 4 + struct.unpack_from(">I", data)[0]:
                length, kind, _, _, number = struct.unpack_from(">IBBHI", data)
                data = data[4 + length :]
                if kind == RESULT:
                    return levels
                assert kind == LOG, kind
                levels.append(number)

    def call(self, function: str, *args: object) -> object:
        self.sock.sendall(frame(CALL, json.dumps([function, args, None]).encode(), call_id=1))
        kind, body = self.receive()
        assert kind == RESULT, body
        return body

    def ended(self) -> bool:
        return bool(select.select([self.pidfd], [], [], DEADLINE)[0])

    def close(self) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it is dead, and reaped
        self.ended()
        self.sock.close()
        self.parent_death.close()
        self.memfds.close()
        for fd in (self.stdout, self.stderr, self.stacks, self.pidfd):
            os.close(fd)


@unittest.skipUnless(sys.platform == "linux" and hasattr(os, "pidfd_open"), "needs pidfds")
class Template(unittest.TestCase):
    def template(self, source: str = SOURCE, preload: tuple[str, ...] = (), **hello: object) -> Worker:
        template = Worker(source, template={"preload": list(preload)}, **hello)
        self.addCleanup(template.__exit__)
        return template

    def fork(self, template: Worker, number: int, **hello: object) -> Forked:
        forked = Forked(template, number, **hello)
        self.addCleanup(forked.close)
        return forked

    def exited(self, template: Worker) -> tuple[int, dict]:
        data = template.sock.recv(4096)
        kind, _, _, pid, _, size = struct.unpack_from(">BBHIQI", data, 4)
        self.assertEqual(kind, EXITED)
        return pid, json.loads(data[24 : 24 + size])

    def test_workers_are_forked_and_reaped_when_the_host_says_so(self) -> None:
        template = self.template()
        self.assertEqual(template.ready()["warnings"], [])
        one, two = self.fork(template, 1), self.fork(template, 2)
        for worker in (one, two):
            pid, parent, group, fds = worker.call("where")
            self.assertEqual((pid, parent, group), (worker.pid, template.process.pid, worker.pid))
            # Three streams, channel, stacks, parent-death socket, socket for memfds, the folder that is listed, the
            # package for children.
            self.assertEqual(len(fds), 9 + (template.begun_memory is not None), fds)
        self.assertNotEqual(one.ready["pid"], two.ready["pid"])
        one.call("print_it", "hello")
        self.assertEqual(os.read(one.stdout, 100), b"hello\n")

        two.sock.sendall(frame(CALL, json.dumps(["leave", [7], None]).encode(), call_id=2))
        self.assertTrue(two.ended())
        self.assertTrue(os.path.exists(f"/proc/{two.pid}"), "a zombie until the host says so")
        template.send(frame(REAP, number=two.pid))
        pid, status = self.exited(template)
        self.assertEqual((pid, os.WEXITSTATUS(status["status"])), (two.pid, 7))
        self.assertGreater(status["max_rss_bytes"], 1 << 20)

        # Told before it is dead.
        template.send(frame(REAP, number=one.pid))
        signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
        pid, status = self.exited(template)
        self.assertEqual((pid, os.WTERMSIG(status["status"])), (one.pid, signal.SIGKILL))

    def test_what_handlers_of_the_fork_open_stays_open(self) -> None:
        handlers = """
kept = []
def opens():
    kept.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(3))
os.register_at_fork(after_in_child=opens)

def open_files():
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in kept]
"""
        template = self.template(SOURCE + handlers)
        self.assertEqual(template.ready()["warnings"], [])
        self.assertEqual(self.fork(template, 1).call("open_files"), [os.devnull] * 3)

    def test_template_does_not_reap_children_of_fork_handlers(self) -> None:
        handlers = """
import subprocess
os.register_at_fork(after_in_child=lambda: subprocess.run(["true"], check=True))
"""
        template = self.template(SOURCE + handlers)
        template.ready()
        one = self.fork(template, 1)
        # Told before it is dead, so that the next worker inherits the wish.
        template.send(frame(REAP, number=one.pid))
        two = self.fork(template, 2)
        self.assertEqual(two.call("where")[0], two.pid)
        signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
        pid, status = self.exited(template)
        self.assertEqual((pid, os.WTERMSIG(status["status"])), (one.pid, signal.SIGKILL))

    def test_a_worker_logs_what_the_host_wants_by_now(self) -> None:
        logs = """
import logging
def log():
    for level in (10, 20, 30, 40):
        logging.log(level, "said")
    logging.getLogger("last").critical("said")
"""
        for at_first in (10, 30, 40):
            template = self.template(SOURCE + logs, log_level=at_first)
            template.ready()
            for number, level in enumerate((10, 20, 30, 40), 1):
                worker = self.fork(template, number, log_level=level)
                worker.sock.sendall(frame(CALL, json.dumps(["log", [], None]).encode(), call_id=1))
                self.assertEqual(worker.logged(), [it for it in (10, 20, 30, 40, 50) if it >= level], at_first)

    def test_forked_worker_outlives_template_ends_with_channel(self) -> None:
        template = self.template()
        template.ready()
        worker = self.fork(template, 1)
        template.send(frame(SHUTDOWN))
        self.assertEqual(template.process.wait(DEADLINE), 0)
        self.assertEqual(worker.call("where")[0], worker.pid)
        worker.sock.shutdown(socket.SHUT_RDWR)
        self.assertTrue(worker.ended())

    def test_what_is_no_request_ends_it(self) -> None:
        template = self.template()
        template.ready()
        template.send(frame(CALL, b"[]", call_id=1))
        self.assertEqual(template.process.wait(DEADLINE), 76)

    def test_a_dead_host_ends_it(self) -> None:
        template = self.template()
        template.ready()
        template.sock.shutdown(socket.SHUT_RDWR)
        self.assertEqual(template.process.wait(DEADLINE), 0)


if __name__ == "__main__":
    unittest.main()
