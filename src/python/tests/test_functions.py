"""What is exported, and that signatures read as `inspect` writes them."""

from __future__ import annotations

import functools
import inspect
import types
import typing
import unittest

from hatchery import _functions


def module_of(source: str) -> types.ModuleType:
    module = types.ModuleType("usermodule")
    exec(compile(source, "usermodule.py", "exec", dont_inherit=True), module.__dict__)
    return module


def names(source: str, wanted=None) -> list[str]:
    return list(_functions.exported(module_of(source), wanted))


class Exported(unittest.TestCase):
    def test_public_functions_of_the_module(self) -> None:
        source = """
            from os.path import join
            import functools, json
            def b(): pass
            def _private(): pass
            async def a(): pass
            class Class: pass
            @functools.lru_cache
            def cached(): pass
            number = 1
            partial = functools.partial(b)
        """
        self.assertEqual(names(inspect.cleandoc(source)), ["b", "a", "cached"])

    def test_all_decides(self) -> None:
        source = (
            "from os.path import join\ndef a(): pass\ndef _b(): pass\nx = 1\n__all__ = ['join', '_b', 'x', 'missing']"
        )
        self.assertEqual(names(source), ["join", "_b"])

    def test_wanted_narrows(self) -> None:
        source = "def count_words(): pass\ndef other(): pass"
        self.assertEqual(names(source, ["other"]), ["other"])
        self.assertEqual(names(source, []), [])
        with self.assertRaises(_functions.ExportError) as caught:
            names(source, ["count_wrods"])
        expected = "module 'usermodule' exports no function 'count_wrods'; did you mean 'count_words'?"
        self.assertEqual(str(caught.exception), expected)

    def test_why_a_name_cannot_be_called(self) -> None:
        cases = [
            ("__all__ = ['f']\ndef f(): pass\ndef g(): pass", "g", "not in the module's __all__"),
            ("__all__ = ['x']\nx = 1.5", "x", "it is a float, which cannot be called"),
            ("from os.path import join as f", "f", "defined in module 'posixpath' and only imported here"),
            ("import functools\nf = functools.partial(print)", "f", "it is a functools.partial"),
            ("import operator\nf = operator.itemgetter(1)", "f", "it is an? operator.itemgetter"),
        ]
        for source, name, why in cases:
            with self.subTest(name=name, source=source):
                self.assertRegex(_functions.why_not(module_of(source), name) or "", why)
        self.assertIsNone(_functions.why_not(module_of("x = 1"), "absent"))
        with self.assertRaises(_functions.ExportError) as caught:
            names("from os.path import join", ["join"])
        self.assertIn("only imported here", str(caught.exception))

    def test_functions_without_a_module_are_found(self) -> None:
        source = """
from math import sqrt
namespace = {}
exec("def made(): pass", namespace)
made = namespace["made"]
made.__module__ = None
def unset(): pass
unset.__module__ = None
class Compiled:
    __module__ = None
    __code__ = unset.__code__
    def __call__(self): pass
compiled = Compiled()
"""
        self.assertEqual(names(source), ["made", "unset", "compiled"])

    def test_proxies_that_raise_are_left_out(self) -> None:
        source = """
class Proxy:
    def __call__(self): pass
    @property
    def __module__(self): raise RuntimeError("unbound")
proxy = Proxy()
"""
        self.assertEqual(names(source), [])


class Signatures(unittest.TestCase):
    def test_they_read_as_inspect_writes_them(self) -> None:
        source = """
import typing, collections.abc
def plain(a, b=1, *c, d, e=None, **f): pass
def slash(a, /, b, *, c): pass
def only_slash(a, b=(1, 2), /): pass
def keywords(*, a: int, b: str = "x"): pass
def typed(a: int, b: typing.Optional[str] = None, *c: float, d: "list[int]", **e: typing.Any) -> typing.List[str]: pass
def returns() -> None: pass
def named(a: collections.OrderedDict) -> collections.abc.Iterator[int]: pass
def abstract(a: collections.abc.Iterator, b: list[int], c: typing.Callable[[int], str]) -> "typing.Any": pass
async def later(a, *, b=2.5): pass
def locals_too(a):
    x = a
    return x
"""
        module = module_of(source)
        for name, function in _functions.exported(module, None).items():
            with self.subTest(name):
                self.assertEqual(_functions.signature(function), str(inspect.signature(function)))
                own, returns = _functions._parameters(function)
                theirs, also_returns = _functions._inspected(function)
                self.assertEqual((own, returns), (theirs, also_returns))

    def test_wrapped_and_built_in(self) -> None:
        def inner(a: int) -> int: ...

        @functools.wraps(inner)
        def outer(*args, **kwargs): ...

        self.assertEqual(_functions.signature(outer), str(inspect.signature(outer)))
        self.assertEqual(
            _functions.signature(functools.partial(inner, 1)), str(inspect.signature(functools.partial(inner, 1)))
        )
        self.assertIsNone(_functions.signature(max))
        facts = _functions.describe("max", max)
        self.assertEqual((facts["signature"], facts["parameters"]), (None, None))

    def test_strange_defaults_and_documentation(self) -> None:
        class Odd:
            def __repr__(self) -> str:
                raise ValueError

        def function(a=Odd(), b="x" * 1000, c: typing.Any = 1) -> None:  # noqa: B008
            """

            First line.
            Second.
            """

        facts = _functions.describe("function", function)
        self.assertTrue(facts["signature"].startswith("(a=..., b='xxx"))
        self.assertLess(len(facts["signature"]), 200)
        self.assertEqual(facts["doc"], "First line.")
        self.assertEqual([one["required"] for one in facts["parameters"]], [False] * 3)


if __name__ == "__main__":
    unittest.main()
