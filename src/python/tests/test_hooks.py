"""`@on_start`, `@on_stop`, `@export`."""

from __future__ import annotations

import unittest

from tests.support import ERROR, SHUTDOWN, Worker, frame


class Starts(unittest.TestCase):
    def refused(self, source: str, phase: str, **hello) -> dict:
        with Worker(source, **hello) as worker:
            error = worker.refused()
            self.assertEqual((error["kind"], error["phase"]), ("start", phase))
            self.assertEqual(worker.end(), 1)
            self.assertEqual(worker.printed["stderr"], b"")
            return error

    def test_in_order_before_ready(self) -> None:
        source = """
            import asyncio
            import hatchery
            order = ["import"]
            @hatchery.on_start
            def one(): order.append("one")
            @hatchery.on_start
            async def two():
                await asyncio.sleep(0)
                order.append("two")
                two.loop = asyncio.get_running_loop()
                async def background():
                    while True:
                        await asyncio.sleep(0)
                        two.turns += 1
                two.turns = 0
                two.task = asyncio.ensure_future(background())
            @hatchery.on_start
            def three(): order.append("three")
            def happened(): return order
            async def same_loop(): return asyncio.get_running_loop() is two.loop
            def turns(): return two.turns
        """
        with Worker(source) as worker:
            worker.ready()
            self.assertEqual(worker.call("happened"), ["import", "one", "two", "three"])
            self.assertTrue(worker.call("same_loop"))
            before = worker.call("turns")
            self.assertGreater(worker.call("turns"), before)
            self.assertEqual(worker.shutdown(), 0)
            self.assertEqual(worker.printed["stderr"], b"")

    def test_failures(self) -> None:
        for kind in ("", "async "):
            source = f"import hatchery\n@hatchery.on_start\n{kind}def start():\n    1 / 0\n"
            error = self.refused(source, "on_start")
            self.assertEqual((error["type"], error["message"]), ("ZeroDivisionError", "division by zero"))
            self.assertRegex(error["traceback"], r'\ATraceback [^\n]*\n  File "[^"]*usermodule.py", line 4, in start')
            source = f"import hatchery\n@hatchery.on_start\n{kind}def start():\n    raise SystemExit('no licence')\n"
            self.assertEqual(self.refused(source, "on_start")["message"], "no licence")
        source = "import hatchery\n@hatchery.on_start\ndef start(needed): pass\n"
        self.assertEqual(self.refused(source, "on_start")["type"], "TypeError")
        self.assertEqual(self.refused("import hatchery\nhatchery.on_stop(5)", "import")["type"], "TypeError")

    def test_too_late(self) -> None:
        with Worker("def late():\n    import hatchery\n    hatchery.on_start(print)\n") as worker:
            worker.ready()
            self.assertIn("has started already", worker.call("late")["message"])


class Stops(unittest.TestCase):
    SOURCE = """
        import asyncio
        import hatchery
        def same(value): return value
        async def same_later(value): return value
        @hatchery.on_stop
        def one(): print("one")
        @hatchery.on_stop
        async def two():
            await asyncio.sleep(0)
            print("two")
        @hatchery.on_stop
        def three(): print("three")
    """

    def test_in_reverse_order(self) -> None:
        for function in ("same", "same_later"):
            with self.subTest(function), Worker(self.SOURCE) as worker:
                worker.ready()
                self.assertEqual(worker.call(function, 1), 1)
                self.assertEqual(worker.shutdown(), 0)
                self.assertEqual(worker.printed, {"stdout": b"three\ntwo\none\n", "stderr": b""})

    def test_when_the_host_goes_away(self) -> None:
        with Worker(self.SOURCE) as worker:
            worker.ready()
            worker.sock.close()
            self.assertEqual(worker.end(), 0)
            self.assertEqual(worker.printed["stdout"], b"three\ntwo\none\n")

    def test_failures(self) -> None:
        source = """
            import sys
            import hatchery
            def same(value): return value
            @hatchery.on_stop
            def one(): print("one")
            @hatchery.on_stop
            async def two(): raise ValueError("two")
            @hatchery.on_stop
            def three():
                print("three")
                sys.exit("three")
        """
        with Worker(source) as worker:
            worker.ready()
            worker.send(frame(SHUTDOWN))
            kind, call_id, error = worker.receive()
            self.assertEqual((kind, call_id, error["kind"]), (ERROR, 0, "stop"))
            self.assertEqual((error["type"], error["message"]), ("SystemExit", "three"))
            self.assertIn("in three", error["traceback"])
            self.assertEqual(worker.end(), 0)
            self.assertEqual(worker.printed["stdout"], b"three\none\n")
        with Worker(source) as worker:
            worker.ready()
            worker.sock.close()
            self.assertEqual(worker.end(), 0)

    def test_not_in_a_forked_child(self) -> None:
        source = """
            import os
            import hatchery
            @hatchery.on_stop
            def stop(): print("stopped", flush=True)
            def fork():
                child = os.fork()
                return os.waitpid(child, 0)[1] >> 8 if child else 0
        """
        with Worker(source) as worker:
            worker.ready()
            self.assertEqual(worker.call("fork"), 74)
            self.assertEqual(worker.shutdown(), 0)
            self.assertEqual(worker.printed["stdout"], b"stopped\n")

    def test_background_tasks_end_after_the_hooks(self) -> None:
        source = """
            import asyncio
            import hatchery
            async def begin():
                async def background():
                    try:
                        await asyncio.sleep(3600)
                    finally:
                        print("background")
                begin.task = asyncio.ensure_future(background())
                await asyncio.sleep(0)
            @hatchery.on_stop
            def stop(): print("hook")
        """
        with Worker(source) as worker:
            worker.ready()
            worker.call("begin")
            self.assertEqual(worker.shutdown(), 0)
            self.assertEqual(worker.printed, {"stdout": b"hook\nbackground\n", "stderr": b""})


class Exports(unittest.TestCase):
    def names(self, source: str, files: dict[str, str] | None = None, **hello) -> list[str]:
        with Worker(source, files, **hello) as worker:
            return [one["name"] for one in worker.ready()["functions"]]

    def test_exactly_what_is_marked(self) -> None:
        source = """
            from hatchery import export
            import other
            __all__ = ["plain"]
            def plain(): pass
            @export
            def one(): pass
            @export()
            def two(): pass
            @export(name="drei")
            def three(): pass
            class Class:
                @export(name="method")
                @staticmethod
                def method(): pass
        """.replace("@staticmethod\n", "# no staticmethod: before Python 3.10 it cannot be called\n")
        other = "import hatchery\n@hatchery.export\ndef far(): return 'far'\n"
        names = self.names(source, {"other.py": other})
        self.assertEqual(names, ["far", "one", "two", "drei", "method"])
        self.assertEqual(self.names(source, {"other.py": other}, functions=["two", "far"]), ["two", "far"])

    def test_calls(self) -> None:
        source = "import hatchery\n@hatchery.export(name='zwei')\nasync def two(n): return n\n"
        with Worker(source) as worker:
            worker.ready()
            self.assertEqual([worker.call("zwei", n) for n in (1, 2)], [1, 2])
            self.assertEqual(worker.call("two", 1)["kind"], "no_such_function")

    def test_two_of_a_name(self) -> None:
        source = "import hatchery\n@hatchery.export\ndef one(): pass\n@hatchery.export(name='one')\ndef two(): pass\n"
        with Worker(source) as worker:
            error = worker.refused()
            self.assertEqual(error["phase"], "setup")
            self.assertRegex(error["message"], r"'one': usermodule.one \(.*:2\) and usermodule.two \(.*:4\)")

    def test_what_cannot_be_marked(self) -> None:
        for mark in (
            "hatchery.export(5)",
            "hatchery.export(functools.partial(print))",
            "hatchery.export(print, name=5)",
        ):
            with self.subTest(mark), Worker(f"import functools, hatchery\n{mark}\n") as worker:
                self.assertEqual(worker.refused()["type"], "TypeError")


if __name__ == "__main__":
    unittest.main()
