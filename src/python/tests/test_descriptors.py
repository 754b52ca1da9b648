"""What a worker does with descriptors that it got from the host by mistake."""

from __future__ import annotations

import os
import unittest

from tests.support import Worker

SOURCE = """
import os, sys

def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True

at_import = [fd for fd in range(1000) if is_open(fd)]

def open_at_import():
    return at_import

def opened_by_site():
    file = sys.modules["sitecustomize"].file
    return [file.fileno(), file.read()]
"""
# As if there were no /proc when the worker looks for descriptors. The file is opened by Python itself.
SITE = """
import os
file = open(__file__)
real = os.listdir
def listdir(path="."):
    if path == "/proc/self/fd":
        os.listdir = real
        raise FileNotFoundError(path)
    return real(path)
if "WITHOUT_PROC" in os.environ:
    os.listdir = listdir
"""


class Inherited(unittest.TestCase):
    def setUp(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        self.passed = [os.dup2(reading, 900), os.dup2(writing, 901)]
        for fd in self.passed:
            self.addCleanup(os.close, fd)

    def worker(self, **options: object) -> Worker:
        worker = Worker(SOURCE, files={"sitecustomize.py": SITE}, pass_fds=self.passed, **options)
        self.addCleanup(worker.__exit__)
        return worker

    def look(self) -> None:
        worker = self.worker()
        worker.ready()
        at_import = worker.call("open_at_import")
        self.assertEqual([fd for fd in self.passed if fd in at_import], [])
        self.assertIn(2, at_import)
        fd, text = worker.call("opened_by_site")
        self.assertGreater(fd, 2)
        self.assertEqual(text, SITE)

    def test_inherited_descriptor_is_closed_before_the_import(self) -> None:
        self.environment("PYTHONPATH", ".")
        self.look()

    def test_inherited_descriptor_is_closed_without_proc(self) -> None:
        self.environment("PYTHONPATH", ".")
        self.environment("WITHOUT_PROC", "1")
        self.look()

    def test_template_closes_an_inherited_descriptor(self) -> None:
        template = self.worker(template={"preload": []})
        self.assertEqual(template.ready()["warnings"], [])
        numbers = {int(name) for name in os.listdir(f"/proc/{template.process.pid}/fd")}
        self.assertEqual(numbers & set(self.passed), set())

    def environment(self, name: str, value: str) -> None:
        before = os.environ.get(name)
        os.environ[name] = value
        self.addCleanup(lambda: os.environ.pop(name) if before is None else os.environ.__setitem__(name, before))


if __name__ == "__main__":
    unittest.main()
