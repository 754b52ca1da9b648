"""Calls to a real worker, started the way the host starts it."""

from __future__ import annotations

import unittest
from typing import ClassVar

from tests.support import CALL, ERROR, RESULT, Shared, Worker, frame

SOURCE = '''
"""A user's module: it does not import hatchery."""
import asyncio
import functools
import json

def echo(*args, **kwargs):
    return [list(args), kwargs]

def same(value):
    return value

def add(a: int, /, b: int = 1, *, c: int = 0) -> int:
    """Add.

    Up."""
    return a + b + c

async def later(value):
    await asyncio.sleep(0)
    return value

async def later_fails():
    await asyncio.sleep(0)
    raise LookupError("later")

async def loop_id():
    return id(asyncio.get_running_loop())

def typed_wrong_inside():
    return len(5)

def typed_wrong_deeper():
    return add()

def chained():
    try:
        json.loads("{")
    except ValueError as error:
        raise RuntimeError("bad file") from error

def unprintable():
    class Odd(Exception):
        def __str__(self):
            raise ValueError
    raise Odd

def huge_message():
    raise ValueError("x" * 10_000_000)

def surrogate_message():
    raise ValueError("a\\ud800b")

def leaves(how):
    if how == "exit":
        raise SystemExit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "generator":
        raise GeneratorExit
    raise BaseException("base")

async def leaves_later():
    raise SystemExit(4)

def recurse():
    return recurse()

def no_memory():
    raise MemoryError

def deep_cause(n):
    error = None
    for i in range(n):
        new = ValueError(i)
        new.__cause__ = error
        error = new
    raise error

def result(name):
    nested = []
    for _ in range(10_000):
        nested = [nested]
    itself = {}
    itself["me"] = itself
    return {
        "nan": float("nan"), "nans": [float("inf"), {"a": float("-inf")}], "big": 2**64, "max": 2**64 - 1,
        "surrogate": "\\ud800", "nested": nested, "itself": itself, "set": {"rows": [1, {2}]}, "tuple": (1, (2,)),
        "keys": {7: 1, None: 2, True: 3, 1.5: 4}, "complex": 1j, "generator": (x for x in "ab"), "function": len,
    }[name]

def generate():
    yield 1

async def generate_later():
    yield 1

def large(size):
    return "x" * size

def length(text):
    return len(text)

def version():
    import hatchery
    return [hatchery.__version__, hatchery.__file__ if hasattr(hatchery, "__file__") else None]

def _private():
    return 1
'''


class Calls(Shared):
    source = SOURCE
    options: ClassVar[dict] = {"max_frame_bytes": 8_000_000}

    def fails(self, kind: str, function: str, *args, **kwargs) -> dict:
        error = self.call(function, *args, **kwargs)
        self.assertIsInstance(error, dict)
        self.assertEqual(error["kind"], kind)
        return error

    def test_ready(self) -> None:
        self.assertEqual(self.ready["pid"], self.worker.process.pid)
        functions = {one["name"]: one for one in self.ready["functions"]}
        self.assertNotIn("_private", functions)
        add = functions["add"]
        self.assertEqual(add["signature"], "(a: int, /, b: int = 1, *, c: int = 0) -> int")
        self.assertEqual(add["doc"], "Add.")
        self.assertEqual(
            [(one["name"], one["kind"], one["required"]) for one in add["parameters"]],
            [("a", "positional_only", True), ("b", "positional_or_keyword", False), ("c", "keyword_only", False)],
        )

    def test_arguments(self) -> None:
        self.assertEqual(self.call("echo"), [[], {}])
        self.assertEqual(self.call("echo", 1, None, k=[2]), [[1, None], {"k": [2]}])
        self.assertEqual(self.call("echo", k=2), [[], {"k": 2}])
        self.assertEqual(self.call("add", 1, c=5), 7)

    def test_texts(self) -> None:
        for text in ("", "Grüße 👋", '\0\n"\\', "\u2028"):
            self.assertEqual(self.call("same", text), text)

    def test_async_functions_share_a_loop(self) -> None:
        self.assertEqual(self.call("later", [1]), [1])
        self.assertEqual(self.call("loop_id"), self.call("loop_id"))
        error = self.fails("python", "later_fails")
        self.assertEqual((error["type"], error["message"]), ("LookupError", "later"))
        self.assertRegex(error["traceback"], r'\ATraceback \(most recent call last\):\n  File "[^"]*usermodule.py"')
        self.assertEqual(self.fails("python", "leaves_later")["type"], "SystemExit")
        self.assertEqual(self.call("later", 2), 2)

    def test_exceptions(self) -> None:
        error = self.fails("python", "chained")
        self.assertEqual((error["type"], error["message"]), ("RuntimeError", "bad file"))
        self.assertIn("json.decoder.JSONDecodeError", error["traceback"])
        self.assertIn("direct cause", error["traceback"])
        self.assertNotIn("hatchery", error["traceback"])
        self.assertEqual(self.fails("python", "unprintable")["message"], "<its __str__ raised ValueError>")
        self.assertEqual(self.fails("python", "unprintable")["type"], "usermodule.unprintable.<locals>.Odd")
        self.assertEqual(self.fails("python", "surrogate_message")["message"], "a?b")
        self.assertLess(len(self.fails("python", "huge_message")["message"]), 20_000)

    def test_what_is_no_exception_of_the_usual_kind(self) -> None:
        kinds = {
            "exit": "SystemExit",
            "interrupt": "KeyboardInterrupt",
            "generator": "GeneratorExit",
            "": "BaseException",
        }
        for how, kind in kinds.items():
            self.assertEqual(self.fails("python", "leaves", how)["type"], kind)
        self.assertEqual(self.fails("python", "recurse")["type"], "RecursionError")
        self.assertEqual(self.fails("python", "no_memory")["type"], "MemoryError")
        error = self.fails("python", "deep_cause", 3000)
        self.assertEqual(error["message"], "2999")
        self.assertLess(len(error["traceback"]), 70_000)

    def test_wrong_arguments(self) -> None:
        error = self.fails("arguments", "add")
        self.assertEqual(error["message"], "missing a required argument: 'a'")
        self.assertEqual(error["signature"], "(a: int, /, b: int = 1, *, c: int = 0) -> int")
        self.fails("arguments", "add", 1, 2, 3)
        self.fails("arguments", "add", 1, unknown=1)
        self.fails("arguments", "later")
        for inside in ("typed_wrong_inside", "typed_wrong_deeper"):
            self.assertEqual(self.fails("python", inside)["type"], "TypeError")
        self.assertEqual(self.fails("python", "add", "text")["type"], "TypeError")

    def test_unknown_functions(self) -> None:
        self.assertEqual(self.fails("no_such_function", "ehco")["similar"], ["echo"])
        for name in ("_private", "json.loads", "", "__name__"):
            self.assertEqual(self.fails("no_such_function", name)["name"], name)

    def test_results(self) -> None:
        self.assertIsNone(self.call("result", "nan"))
        self.assertEqual(self.call("result", "nans"), [None, {"a": None}])
        self.assertEqual(self.call("result", "max"), 2**64 - 1)
        self.assertEqual(self.call("result", "tuple"), [1, [2]])
        self.assertEqual(self.call("result", "keys"), {"7": 1, "null": 2, "true": 3, "1.5": 4})
        for name, says in (
            ("big", "result is an integer of 65 bits"),
            ("surrogate", "lone surrogate (U+D800)"),
            ("nested", "deeper than 120 levels"),
            ("itself", "or contains itself"),
            ("set", "result['rows'][1] is a set;"),
            ("complex", "result is a complex;"),
            ("generator", "result is a generator;"),
            ("function", "result is a builtin_function_or_method;"),
        ):
            self.assertIn(says, self.fails("encode", "result", name)["message"])
        self.assertIn("result is a generator;", self.fails("encode", "generate")["message"])
        self.assertIn("result is an async_generator;", self.fails("encode", "generate_later")["message"])

    def test_large_frames(self) -> None:
        self.assertEqual(self.call("length", "é" * 1_000_000), 1_000_000)
        self.assertEqual(len(self.call("large", 7_999_978)), 7_999_978)
        error = self.fails("frame_too_large", "large", 7_999_979)
        self.assertEqual((error["size"], error["limit"]), (8_000_001, 8_000_000))

    def test_malformed_calls_are_refused(self) -> None:
        for body in (
            b"{",
            b"",
            b"null",
            b"[]",
            b'["same"]',
            b'["same",[1],null,{},{}]',
            b'["same",[1],null,[]]',
            b'["same",[1],null,{"unknown":1}]',
            b'["same",[1],null,{"credit":-1}]',
            b'["same",[1],null,{"credit":true}]',
            b'["same",[1],null,{"progress":1}]',
            b'["same",[1],null,{"session":null}]',
            b'[["same"],[1],null]',
            b"[1,[],null]",
            b"\xff",
            b'["same",[1],null] ]',
            b'["same",[1]',
        ):
            with self.subTest(body):
                self.worker.send(frame(CALL, body, call_id=77, codec=1))
                kind, call_id, error = self.worker.receive()
                self.assertEqual((kind, call_id, error["kind"]), (ERROR, 77, "decode"), error)
        self.assertEqual(self.call("same", 1), 1)

    def test_numbers_that_are_none_become_null(self) -> None:
        self.worker.send(frame(CALL, b'["same",[[NaN,-Infinity]],null]', call_id=78))
        self.assertEqual(self.worker.receive(), (RESULT, 78, [None, None]))

    def test_many_calls_at_once_are_answered_in_order(self) -> None:
        calls = b"".join(frame(CALL, b'["same",[%d],null]' % n, call_id=1000 + n) for n in range(2000))
        self.worker.send(calls)
        for n in range(2000):
            self.assertEqual(self.worker.receive(), (RESULT, 1000 + n, n))

    def test_hatchery_is_importable(self) -> None:
        self.assertEqual(self.call("version"), ["0.1.0", None])


class Filters(unittest.TestCase):
    def test_functions_narrow(self) -> None:
        with Worker(SOURCE, functions=["same", "add"]) as worker:
            self.assertEqual([one["name"] for one in worker.ready()["functions"]], ["same", "add"])
            self.assertEqual(worker.call("echo")["kind"], "no_such_function")
            self.assertEqual(worker.call("same", 1), 1)

    def test_an_error_over_the_limit_is_shortened(self) -> None:
        with Worker("def f():\n    raise ValueError('\\0' * 5000)", max_frame_bytes=4096) as worker:
            worker.ready()
            error = worker.call("f")
            self.assertEqual((error["type"], error["traceback"]), ("ValueError", ""))
            self.assertTrue(error["message"].startswith("\0" * 50))


if __name__ == "__main__":
    unittest.main()
