"""The package outside a pool: in tests and scripts, and `python -m hatchery`."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import unittest

from tests.support import DEADLINE, PACKAGE

SHOP = """
import asyncio, sys
import hatchery

@hatchery.on_preload
def load(): print("load", file=sys.stderr)

@hatchery.on_start
async def start():
    await asyncio.sleep(0)
    print("start", file=sys.stderr)

@hatchery.on_session_end
def forget(name, state): print("forget", name, state, file=sys.stderr)

@hatchery.on_stop
def stop(): print("stop", file=sys.stderr)

@hatchery.export
def price(item: str, currency: str = "EUR") -> list:
    hatchery.progress({"at": item})
    return [item, currency]

@hatchery.export(name="put")
def add(item):
    cart = hatchery.session().setdefault("cart", [])
    cart.append(item)
    return cart

@hatchery.export
def left(): return hatchery.deadline() is not None

@hatchery.export
def rows(n): yield from range(n)

@hatchery.export
async def rows_later(n):
    for i in range(n): yield i

@hatchery.export
async def later(): return {"done": await asyncio.sleep(0, True)}

@hatchery.export
def data(): return [b"four"]

@hatchery.export
def fails(): raise KeyError("pen")

@hatchery.export
def unsendable(): return {1}

@hatchery.export
def ask(): return hatchery.call_host("price")

def hidden(): return 1
"""
OUTSIDE = """
import shop, hatchery
assert shop.price("pen") == ["pen", "EUR"]
assert shop.add("pen") == ["pen"] and shop.add("ink") == ["pen", "ink"]
assert hatchery.session() == {"cart": ["pen", "ink"]}
assert hatchery.deadline() is hatchery.request_id() is hatchery.traceparent() is hatchery.progress({1}) is None
assert hatchery.cancelled() is False
try:
    shop.ask()
except RuntimeError as error:
    assert "not a worker of a pool" in str(error)
else:
    raise AssertionError
hatchery.call_host = lambda name: name
assert shop.ask() == "price"
"""


class Outside(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        (pathlib.Path(directory.name) / "shop.py").write_text(textwrap.dedent(SHOP))

    def python(self, *args: str) -> subprocess.CompletedProcess:
        env = {name: value for name, value in os.environ.items() if name != "HATCHERY_WORKER"}
        env["PYTHONPATH"] = str(PACKAGE.parent)
        return subprocess.run(
            [sys.executable, *args],
            cwd=self.directory,
            env=env,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def run_call(self, *args: str) -> subprocess.CompletedProcess:
        return self.python("-m", "hatchery", "call", *args)

    def test_functions_of_a_module_run_in_a_test_as_they_are(self) -> None:
        done = self.python("-c", OUTSIDE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_call_prints_results_as_json(self) -> None:
        calls = [
            (("shop", "price", '"pen"', 'currency="USD"'), '["pen","USD"]\n'),
            (("--session", "a", "shop", "put", "1"), "[1]\n"),
            (("--timeout", "5", "shop", "left"), "true\n"),
            (("shop", "left"), "false\n"),
            (("shop", "rows", "3"), "0\n1\n2\n"),
            (("shop", "rows_later", "2"), "0\n1\n"),
            (("shop", "later"), '{"done":true}\n'),
            (("--path", ".", "shop", "data"), '[{"\\u0000":[0]}] with attachments of 4 bytes\n'),
        ]
        for args, printed in calls:
            with self.subTest(args):
                done = self.run_call(*args)
                self.assertEqual((done.returncode, done.stdout), (0, printed), done.stderr)

    def test_call_runs_hooks_and_shows_progress(self) -> None:
        self.assertEqual(self.run_call("shop", "price", '"pen"').stderr, 'load\nstart\nprogress: {"at":"pen"}\nstop\n')
        said = self.run_call("--session", "a", "shop", "put", "1").stderr
        self.assertEqual(said, "load\nstart\nforget a {'cart': [1]}\nstop\n")

    def test_call_that_fails_says_why(self) -> None:
        calls = [
            (("shop", "fails"), 1, "KeyError: 'pen'"),
            (("shop", "unsendable"), 1, "result is a set"),
            (("shop", "price"), 1, "missing 1 required positional argument"),
            (("shop", "put", "1"), 1, "belongs to no session"),
            (("shop", "ask"), 1, "not a worker of a pool"),
            (("shop", "prices"), 2, "did you mean 'price'"),
            (("shop", "price", "pen"), 2, "pen is not JSON"),
        ]
        for args, code, said in calls:
            with self.subTest(args):
                done = self.run_call(*args)
                self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
                self.assertIn(said, done.stderr)
                self.assertNotIn("hatchery/__main__.py", done.stderr)


if __name__ == "__main__":
    unittest.main()
