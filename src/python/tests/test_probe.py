"""The probe, as the host runs it, on this Python and on those too old."""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import shutil
import subprocess
import sys
import unittest
import zipfile

from tests.support import BOOTSTRAP, DEADLINE, STUB, probe, run, sized


class Probe(unittest.TestCase):
    def test_this_python(self) -> None:
        facts = probe(sys.executable)
        self.assertEqual(facts["version"], list(sys.version_info[:3]))
        self.assertEqual(os.fsdecode(bytes.fromhex(facts["executable"])), sys.executable)
        package = bytes.fromhex(facts["package"])
        self.assertEqual(package[:4], importlib.util.MAGIC_NUMBER)
        marshalled, archive = marshal.loads(package[4:])
        modules = {name: marshal.loads(code) for name, code in marshalled.items()}
        self.assertIn("hatchery._worker", modules)
        self.assertEqual(modules["hatchery._worker"].co_filename, "<hatchery>/_worker.py")
        self.assertEqual(modules["hatchery"].co_filename, "<hatchery>/__init__.py")
        files = zipfile.ZipFile(io.BytesIO(archive)).namelist()
        self.assertIn("hatchery/__init__.pyc", files)
        self.assertIn("hatchery/__init__.py", files)
        self.assertNotIn("hatchery/_worker.pyc", files)

    def test_a_chatty_machine(self) -> None:
        self.assertIn("package", probe(sys.executable, before="print('welcome', end='')\n"))

    def test_old_pythons_say_who_they_are(self) -> None:
        old = ("python2", "python2.7", "python3.6", "python3.7", "python3.8")
        for python in filter(None, map(shutil.which, old)):
            if subprocess.run([python, "--version"], capture_output=True, timeout=DEADLINE, check=False).returncode:
                continue  # a version manager's shim without the version
            with self.subTest(python):
                facts = probe(python)
                self.assertLess(facts["version"], [3, 9])
                self.assertTrue(facts["executable"])
                self.assertNotIn("package", facts)


class Bootstrap(unittest.TestCase):
    def test_a_package_of_another_python(self) -> None:
        done = run(sys.executable, STUB, sized(BOOTSTRAP) + sized(b"\0\0\0\0code"))
        self.assertEqual(done.returncode, 78)
        self.assertIn(b"compiled by another Python", done.stderr)

    def test_a_host_that_goes_away(self) -> None:
        whole = sized(BOOTSTRAP)
        for sent in (b"", b"\0", whole, whole + b"\0", whole + (100).to_bytes(4, "big") + b"abc"):
            done = run(sys.executable, STUB, sent)
            self.assertEqual((done.returncode, done.stderr), (0, b""))


if __name__ == "__main__":
    unittest.main()
