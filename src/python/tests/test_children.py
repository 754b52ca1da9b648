"""Child processes of a worker, and what is around a worker: an installed `hatchery`, the title."""

from __future__ import annotations

import os
import pathlib
import tempfile
import unittest

from tests.support import SHUTDOWN, Worker, frame

SOURCE = """
import multiprocessing, os, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
import hatchery

def version(_=None):
    return [hatchery.__version__, os.getpid()]

def outside(_=None):
    seen = [hatchery.progress(1), hatchery.cancelled(), hatchery.deadline(), hatchery.request_id()]
    for ask in (hatchery.session, lambda: hatchery.call_host("price")):
        try:
            seen.append(ask())
        except RuntimeError as error:
            seen.append(str(error))
    return seen

def spawned(method, function="version"):
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(globals()[function]).result()

def run(*options, **env):
    code = "import usermodule, json; print(json.dumps(usermodule.version()))"
    env = {**os.environ, **env}
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], os.path.dirname(__file__)])
    done = subprocess.run([sys.executable, *options, "-c", code], env=env, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr

def grandchild():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import hatchery; print(hatchery.__name__)'])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()

def paths():
    return [sys.path, os.environ["PYTHONPATH"].split(os.pathsep), os.environ["HATCHERY_WORKER"]]

def origin():
    return [hatchery.__spec__.origin, hatchery.__version__, getattr(hatchery, "STRANGER", None)]

def title():
    with open("/proc/self/cmdline", "rb") as line, open("/proc/self/comm") as comm:
        return [line.read().decode(), comm.read().strip()]

def set_title(text):
    with open("/proc/self/stat", "rb") as stat:
        start = int(stat.read().rpartition(b")")[2].split()[45])
    with open("/proc/self/mem", "r+b", 0) as mem:
        mem.seek(start)
        mem.write(text.encode() + b"\\0")

@hatchery.on_stop
def tell():
    import sys
    sys.stderr.write("title: " + title()[0] + "\\n")
"""
STRANGER = "STRANGER = True\n__version__ = '99'\n"


class Children(unittest.TestCase):
    def worker(self, **options: object) -> Worker:
        worker = Worker(SOURCE, **options)
        self.addCleanup(worker.__exit__)
        worker.ready()
        return worker

    def test_process_pools_import_the_package_by_any_start_method(self) -> None:
        worker = self.worker()
        for method in ("fork", "spawn", "forkserver"):
            with self.subTest(method):
                version, pid = worker.call("spawned", method)
                self.assertEqual(version, worker.call("version")[0])
                self.assertNotEqual(pid, worker.process.pid)

    def test_interpreters_that_a_call_starts_import_the_package(self) -> None:
        worker = self.worker()
        self.assertIn('"', worker.call("run"))
        self.assertEqual(worker.call("grandchild"), "hatchery")

    def test_package_functions_in_a_child_do_nothing_or_raise(self) -> None:
        worker = self.worker()
        *harmless, session, host = worker.call("spawned", "spawn", "outside")
        self.assertEqual(harmless, [None, False, None, None])
        self.assertIn("child process of worker test-1", session)
        self.assertIn("not a worker of a pool", host)

    def test_paths_begin_with_what_the_host_gives(self) -> None:
        worker = self.worker()
        paths, inherited, name = worker.call("paths")
        self.assertEqual(name, "test-1")
        self.assertEqual(paths[0], worker.directory.name)
        self.assertEqual(paths[1], inherited[0])
        self.assertTrue(paths[1].startswith(f"/proc/{worker.process.pid}/fd/"), paths[1])

    def test_a_package_on_the_users_path_does_not_shadow_ours(self) -> None:
        worker = self.worker(files={"hatchery.py": STRANGER})
        self.assertEqual(worker.call("origin"), ["<hatchery>", "0.1.0", None])

    def test_a_package_that_the_site_imports_is_replaced(self) -> None:
        site = pathlib.Path(self.worker_site())
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(site)
        try:
            worker = self.worker()
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before
        self.assertEqual(worker.call("origin"), ["<hatchery>", "0.1.0", None])
        self.assertIn("0.1.0", worker.call("run"))

    def worker_site(self) -> str:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        root = pathlib.Path(directory.name)
        (root / "hatchery").mkdir()
        (root / "hatchery" / "__init__.py").write_text(STRANGER)
        (root / "hatchery" / "_calls.py").write_text("raise RuntimeError('not this one')\n")
        (root / "sitecustomize.py").write_text("import hatchery\n")
        return directory.name


class Titles(unittest.TestCase):
    def test_title_names_worker_and_state_and_shows_no_source(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            line, comm = worker.call("title")
            self.assertEqual(line.rstrip("\0"), "hatchery: test-1 (serving)")
            self.assertEqual(comm, "test-1")
            worker.sock.sendall(frame(SHUTDOWN))
            worker.end()
            self.assertIn(b"title: hatchery: test-1 (stopping)", worker.printed["stderr"])

    def test_title_of_user_code_is_kept(self) -> None:
        with Worker(SOURCE) as worker:
            worker.ready()
            worker.call("set_title", "my own")
            worker.sock.sendall(frame(SHUTDOWN))
            worker.end()
            self.assertIn(b"title: my own", worker.printed["stderr"])

    def test_long_names_keep_the_workers_number(self) -> None:
        for name, comm in (("a-very-long-pool-name-12", "a-very-long--12"), ("x" * 40, "x" * 15)):
            with Worker(SOURCE, worker=name) as worker:
                worker.ready()
                line, shown = worker.call("title")
                self.assertEqual(shown, comm)
                self.assertEqual(line.rstrip("\0"), f"hatchery: {name} (serving)")


if __name__ == "__main__":
    unittest.main()
