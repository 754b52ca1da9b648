"""What user code, and a host out of its mind, may do to a worker."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import struct
import unittest

from tests.support import CALL, CANCEL, DEADLINE, HELLO, READY, SESSION_END, Worker, frame

ECHO = "def echo(value):\n    return value\n"


class Starts(unittest.TestCase):
    def refused(self, source: str, **hello) -> dict:
        with Worker(source, **hello) as worker:
            error = worker.refused()
            self.assertEqual(error["kind"], "start")
            self.assertEqual(worker.end(), 1)
            self.assertEqual(worker.printed["stderr"], b"")
            return error

    def test_imports_that_fail(self) -> None:
        error = self.refused("import json\n1 / 0")
        self.assertEqual((error["phase"], error["type"]), ("import", "ZeroDivisionError"))
        self.assertRegex(
            error["traceback"], r'\ATraceback \(most recent call last\):\n  File "[^"]*usermodule.py", line 2'
        )
        error = self.refused("import nothing_of_this_name")
        self.assertEqual((error["type"], error["phase"]), ("ModuleNotFoundError", "import"))
        self.assertIn("nothing_of_this_name", error["message"])
        self.assertEqual(self.refused("def (:")["type"], "SyntaxError")
        error = self.refused("", module="no_module")
        self.assertEqual(error["traceback"], "ModuleNotFoundError: No module named 'no_module'\n")

    def test_imports_that_leave(self) -> None:
        error = self.refused("import sys\nsys.exit('no licence')")
        self.assertEqual((error["type"], error["message"]), ("SystemExit", "no licence"))
        self.assertEqual(self.refused("raise KeyboardInterrupt")["type"], "KeyboardInterrupt")
        with Worker("import os\nos._exit(3)") as worker:
            self.assertRaises(EOFError, worker.receive)
            self.assertEqual(worker.end(), 3)

    def test_a_function_that_does_not_exist(self) -> None:
        error = self.refused(ECHO, functions=["ehco"])
        self.assertEqual(error["phase"], "setup")
        self.assertEqual(error["message"], "module 'usermodule' exports no function 'ehco'; did you mean 'echo'?")

    def test_threads_without_ctypes(self) -> None:
        lacking = "import sys\nsys.modules['ctypes'] = None\n"
        error = self.refused(lacking + ECHO, in_flight=2, threads=1)
        self.assertEqual((error["phase"], error["type"]), ("setup", "ImportError"))
        self.assertRegex(error["message"], r"^threads\(n\) needs the module ctypes .*, or set threads\(0\)$")
        with Worker(lacking + ECHO, in_flight=2) as worker:
            worker.ready()
            self.assertEqual(worker.call("echo", 1), 1)

    def test_ready_over_the_limit(self) -> None:
        error = self.refused("".join(f"def f{n}(): pass\n" for n in range(100)), max_frame_bytes=4096)
        self.assertEqual(error["phase"], "setup")

    def test_an_import_that_prints(self) -> None:
        with Worker(
            "import sys\nprint('one')\nprint('zwei ü', file=sys.stderr)\nimport os\nos.write(1, b'two\\n')\n" + ECHO
        ) as worker:
            worker.ready()
            self.assertEqual(worker.call("echo", 1), 1)
            worker.shutdown()
            self.assertEqual(worker.printed["stdout"], b"one\ntwo\n")
            self.assertEqual(worker.printed["stderr"].decode(), "zwei ü\n")

    def test_path_is_in_front_and_the_directory_is_not_on_it(self) -> None:
        source = "import sys, os\ndef path():\n    return [sys.path, os.getcwd(), sys.argv]\n"
        with Worker(source) as worker:
            worker.ready()
            path, directory, argv = worker.call("path")
            self.assertEqual(path[: len(worker.hello["path"])], worker.hello["path"])
            self.assertNotIn("", path)
            self.assertEqual(os.path.realpath(directory), os.path.realpath(worker.directory.name))
            self.assertEqual(argv, ["hatchery-worker"])

    def test_files_in_the_directory_do_not_shadow_the_library(self) -> None:
        with Worker("", files={"struct.py": "1 / 0", "os.py": "1 / 0"}, path=[], module="colorsys") as worker:
            self.assertIn("rgb_to_hsv", [one["name"] for one in worker.ready()["functions"]])


class UserCode(unittest.TestCase):
    def test_print_storms(self) -> None:
        source = """
            import os, sys, subprocess
            def storm(lines):
                for n in range(lines):
                    print("line", n, flush=n % 2)
                    print("error", n, file=sys.stderr)
                    os.write(1, b"raw\\n")
                os.system("echo shell")
                subprocess.run(["echo", "child"])
                return lines
        """
        with Worker(source) as worker:
            worker.ready()
            self.assertEqual(worker.call("storm", 3000), 3000)
            self.assertEqual(worker.shutdown(), 0)
            lines = worker.printed["stdout"].decode().splitlines()
            self.assertEqual([line for line in lines if line.startswith("line")], [f"line {n}" for n in range(3000)])
            self.assertEqual((lines.count("raw"), lines.count("shell"), lines.count("child")), (3000, 1, 1))
            self.assertEqual(worker.printed["stderr"].count(b"\n"), 3000)

    def test_unprintable_text_is_printed_escaped(self) -> None:
        with Worker("def say():\n    print('a\\ud800 ü')\n") as worker:
            worker.ready()
            self.assertIsNone(worker.call("say"))
            worker.shutdown()
            self.assertEqual(worker.printed["stdout"].decode(), "a\\ud800 ü\n")

    def test_standard_input_is_empty(self) -> None:
        source = """
            import os, sys
            def ask(): return input()
            def read(): return [sys.stdin.read(), os.read(0, 10).decode()]
            def child():
                import subprocess
                return subprocess.run(["cat"], capture_output=True, check=True).stdout.decode()
        """
        with Worker(source) as worker:
            worker.ready()
            self.assertEqual(worker.call("ask")["type"], "EOFError")
            self.assertEqual(worker.call("read"), ["", ""])
            self.assertEqual(worker.call("child"), "")
            self.assertEqual(worker.shutdown(), 0)

    def test_closing_the_standard_descriptors(self) -> None:
        with Worker("import os\ndef close():\n    os.closerange(0, 3)\n" + ECHO) as worker:
            worker.ready()
            self.assertIsNone(worker.call("close"))
            self.assertEqual(worker.call("echo", "x" * 100_000), "x" * 100_000)
            self.assertEqual(worker.shutdown(), 0)

    def test_ends_that_cannot_be_caught(self) -> None:
        source = "import os, signal\ndef leave(): os._exit(3)\ndef fall(): os.kill(os.getpid(), signal.SIGSEGV)\n"
        for function, code in (("leave", 3), ("fall", -signal.SIGSEGV)):
            with Worker(source) as worker:
                worker.ready()
                worker.send_call(function)
                self.assertRaises(EOFError, worker.receive)
                self.assertEqual(worker.end(), code)

    def test_a_forked_child_cannot_answer_for_the_worker(self) -> None:
        source = """
            import os
            def fork():
                child = os.fork()
                if child == 0:
                    return "child"
                _, status = os.waitpid(child, 0)
                return status >> 8
        """
        with Worker(source + "\n" + "            def echo(value): return value\n") as worker:
            worker.ready()
            self.assertEqual(worker.call("fork"), 74)
            self.assertEqual(worker.call("echo", 1), 1)
            self.assertEqual(worker.shutdown(), 0)

    def test_multiprocessing_works(self) -> None:
        source = """
            import multiprocessing
            def double(n): return 2 * n
            def pooled(method):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    return pool.map(double, [1, 2, 3])
        """
        with Worker(source) as worker:
            worker.ready()
            for method in ("fork", "spawn"):
                self.assertEqual(worker.call("pooled", method), [2, 4, 6])
            self.assertEqual(worker.shutdown(), 0)

    def test_references_are_dropped_between_calls(self) -> None:
        source = """
            import weakref
            class Big(dict): pass
            seen = []
            def make():
                big = Big(a=1)
                seen.append(weakref.ref(big))
                return big
            def fail():
                big = Big(a=1)
                seen.append(weakref.ref(big))
                raise ValueError
            def alive(): return sum(ref() is not None for ref in seen)
        """
        with Worker(source) as worker:
            worker.ready()
            worker.call("make")
            worker.call("fail")
            self.assertEqual(worker.call("alive"), 0)

    def test_exit_handlers_run(self) -> None:
        source = (
            "import atexit\natexit.register(print, 'goodbye')\n"
            + ECHO
            + """
async def background():
    import asyncio
    async def wait():
        try:
            await asyncio.sleep(1000)
        finally:
            print("cancelled")
    background.task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
"""
        )
        for end in ("shutdown", "eof"):
            with self.subTest(end), Worker(source) as worker:
                worker.ready()
                worker.call("background")
                if end == "eof":
                    worker.sock.shutdown(socket.SHUT_WR)
                    self.assertEqual(worker.end(), 0)
                else:
                    self.assertEqual(worker.shutdown(), 0)
                self.assertEqual(worker.printed["stdout"], b"cancelled\ngoodbye\n")

    def test_users_event_loops_do_not_disturb_the_end(self) -> None:
        source = """
            import asyncio
            async def later(): return 1
            def own_loop(): return asyncio.run(later())
        """
        with Worker(source) as worker:
            worker.ready()
            self.assertEqual((worker.call("later"), worker.call("own_loop"), worker.call("later")), (1, 1, 1))
            self.assertEqual(worker.shutdown(), 0)
            self.assertEqual(worker.printed["stderr"], b"")

    def test_user_files_that_shadow_the_library_end_no_worker(self) -> None:
        broken = "raise RuntimeError('not the one of the standard library')"
        files = {f"{name}.py": broken for name in ("traceback", "inspect", "difflib")}
        with Worker(ECHO + "def fail(): raise ValueError('mine')\n", files) as worker:
            worker.ready()
            error = worker.call("fail")
            self.assertEqual((error["kind"], error["type"], error["message"]), ("python", "ValueError", "mine"))
            self.assertEqual(worker.call("echo")["kind"], "python")  # a TypeError
            self.assertEqual(worker.call("ecko"), {"kind": "no_such_function", "name": "ecko", "similar": []})
            self.assertEqual(worker.call("echo", 1), 1)


class Hosts(unittest.TestCase):
    def protocol_error(self, data: bytes, says: str, *, greeted: bool = True) -> None:
        with self.subTest(says), Worker(ECHO) as worker:
            if greeted:
                worker.ready()
            worker.send(data)
            kind, call_id, error = worker.receive()
            self.assertEqual((kind, call_id, error["kind"]), (5, 0, "protocol"))
            self.assertIn(says, error["message"])
            self.assertEqual(worker.end(), 76)
            self.assertEqual(worker.printed["stderr"].decode(), f"hatchery: {error['message']}\n")

    def test_malformed_frames(self) -> None:
        self.protocol_error(b"\0\0\0\0", "shorter than its header")
        self.protocol_error(struct.pack(">I", (1 << 26) + 1), "over the limit of 67108864")
        self.protocol_error(b"GET / HTTP/1.1\r\n\r\n", "over the limit")
        self.protocol_error(frame(99, b"null"), "unknown kind of frame: 99")
        self.protocol_error(frame(CALL, b"null", codec=7), "unknown codec: 7")
        self.protocol_error(frame(13), "accepts no frame of kind 13")
        self.protocol_error(frame(READY, b"{}"), "accepts no frame of kind 2")
        self.protocol_error(frame(CANCEL, b"{}"), "kind 8 must not have a body")
        self.protocol_error(frame(SESSION_END), "session_end cannot be read")
        self.protocol_error(frame(SESSION_END, b'{"session":1}'), "session_end cannot be read")
        self.protocol_error(frame(HELLO, b"{}"), "accepts no frame of kind 1")
        self.protocol_error(frame(CALL, codec=1)[:-4] + b"\0\0\0\1", "the header describes")

    def test_frames_before_a_bad_one_are_answered(self) -> None:
        with Worker(ECHO) as worker:
            worker.ready()
            worker.send(frame(CALL, b'["echo",[1],null]', call_id=1) + b"\0\0\0\0")
            self.assertEqual(worker.receive(), (4, 1, 1))
            self.assertEqual(worker.receive()[0], 5)
            self.assertEqual(worker.end(), 76)

    def test_wrong_first_frames(self) -> None:
        for hello, says in (
            ({"protocol": 2}, "speaks protocol 2"),
            ({"max_frame_bytes": None}, "cannot be read"),
            ({"max_frame_bytes": 4095}, "is under 4096"),
        ):
            with self.subTest(says), Worker(ECHO, **hello) as worker:
                kind, _, error = worker.receive()
                self.assertEqual(kind, 5)
                self.assertIn(says, error["message"])
                self.assertEqual(worker.end(), 76)

    def test_an_end_before_ready_and_in_mid_frame(self) -> None:
        with Worker(ECHO) as worker:
            worker.sock.shutdown(socket.SHUT_WR)
            worker.ready()
            self.assertEqual(worker.end(), 0)
        with Worker(ECHO) as worker:
            worker.ready()
            worker.send(frame(CALL, b'["echo",[1],null]')[:30])
            worker.sock.shutdown(socket.SHUT_WR)
            self.assertEqual(worker.end(), 74)
            self.assertIn(b"middle of a frame", worker.printed["stderr"])

    def test_a_host_that_closes_during_a_call(self) -> None:
        source = """
            import os, time
            def wait():
                end = time.monotonic() + 20
                while not os.path.exists("closed") and time.monotonic() < end:
                    time.sleep(0.005)
        """
        with Worker(source) as worker:
            worker.ready()
            worker.send_call("wait")
            worker.sock.close()
            (pathlib.Path(worker.directory.name) / "closed").touch()
            self.assertEqual(worker.end(), 74)

    def test_a_host_that_reads_late(self) -> None:
        with Worker("def large(size):\n    return 'x' * size\n" + ECHO) as worker:
            worker.ready()
            worker.send_call("large", [3_000_000])
            call_id = worker.send_call("echo", [1])
            self.assertEqual(len(worker.receive()[2]), 3_000_000)
            self.assertEqual(worker.receive(), (4, call_id, 1))

    def test_a_call_in_pieces(self) -> None:
        with Worker(ECHO) as worker:
            worker.ready()
            for byte in frame(CALL, b'["echo",["abc"],null]', call_id=5):
                worker.send(bytes([byte]))
            self.assertEqual(worker.receive(), (4, 5, "abc"))

    def test_the_socket_is_not_inherited_by_children(self) -> None:
        source = "import subprocess\ndef child():\n    return subprocess.Popen(['sleep', '60'], close_fds=False).pid\n"
        with Worker(source) as worker:
            worker.ready()
            worker.call("child")
            worker.process.kill()
            self.assertTrue(worker.closed(), f"not closed within {DEADLINE} s")


if __name__ == "__main__":
    unittest.main()
