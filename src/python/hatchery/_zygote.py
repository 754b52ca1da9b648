"""The zygote's template: a process that imports the user's modules once, and forks workers. `_worker` enters it.

A template only imports modules and runs `on_preload` hooks. It has one thread, which serves the host's requests.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed does not know it
import _socket
import array
import faulthandler
import fcntl
import gc
import os
import sys
from struct import Struct
from time import perf_counter

from hatchery import _children, _errors, _functions, _hooks, _serving, _signals, _title, _values, _watch, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    _Forked = tuple[list[int], Any]

# Kinds of frames that only host and template exchange.
FORK = 32  # host: fork a worker; with the worker's descriptors
FORKED = 33  # template: the worker's process id, or an error; with its pidfd
REAP = 34  # host: a worker is killed or has ended; take its exit status
EXITED = 35  # template: the exit status of a worker

# The descriptors of a fork request: channel, standard output, standard error, then those of `_descriptors.named`.
_MAX_DESCRIPTORS = 7
_HEAD = Struct(">IBBHIQI")
_READ_BYTES = 4096
_F_SETSIG = 10
_SYS_PIDFD_OPEN = 434  # the same number on all architectures


def serve_template(channel: _wire.Channel, hello: dict[str, Any], rss_bytes: Callable[[], int | None]) -> _Forked:
    """Import the modules that hello names, then fork workers until the host sends `shutdown` or closes the socket.

    Returns only in a forked worker: its descriptors, and the module's exports if they are known. `channel` is then the
    worker's.
    """
    _title.show(hello["worker"], "importing")
    template = _Template(channel, hello)
    began = perf_counter()
    cannot_fork = template.look_for_pidfds()
    if hello.get("stack_signal"):
        # The host may ask for a stack dump during the imports. Each worker registers its own pipe.
        faulthandler.register(hello["stack_signal"], hello["stack_fd"], all_threads=False, chain=False)
    warnings = [] if cannot_fork else template.load()
    if hello.get("stack_signal"):
        faulthandler.unregister(hello["stack_signal"])
    ready = {
        "protocol": _wire.PROTOCOL,
        "pid": os.getpid(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "functions": [],
        "rss_bytes": rss_bytes(),
        "import_ms": round((perf_counter() - began) * 1000, 3),
        "warnings": warnings,
    }
    if cannot_fork:
        ready["cannot_fork"] = cannot_fork  # the host ends this template and starts workers without it
    # Exempt all existing objects from garbage collection, so that workers do not write to shared pages.
    template.collects = gc.isenabled()
    gc.collect()
    gc.disable()
    gc.freeze()
    _title.show(hello["worker"], "template")
    channel.send(_wire.READY, 0, _values.encode_leniently(ready))
    own = template.serve()
    if own is None:
        # Not `sys.exit`: only workers run the exit functions of the modules.
        _flush()
        os._exit(0)
    return own


class _Template:
    """Answers the host's requests."""

    def __init__(self, channel: _wire.Channel, hello: dict[str, Any]) -> None:
        self.channel = channel
        self.hello = hello
        self.collects = True
        self.socket = _socket.socket(fileno=os.dup(channel.fd))
        self.received: list[int] = []
        # Workers that the host has asked to reap, and that are not dead yet.
        self.dying: set[int] = set()
        self.reaping = self.again = False
        self.pid = os.getpid()
        # Descriptors of the template alone.
        self.own = {channel.fd, self.socket.fileno()}
        self.own |= {hello[name] for name in ("stack_fd", "parent_death_fd", "fd_socket", "start_marker_fd")}
        # Descriptors that the imports left open; every worker shares them.
        self.shared: set[int] = set()
        # The module's exports, if they are known.
        self.exports: Any = None

    def look_for_pidfds(self) -> str | None:
        """Find a way to open a pidfd. Returns why workers cannot be forked; None if they can."""
        try:
            self.pidfd_open = getattr(os, "pidfd_open", None) or _pidfd_open_by_number()
            os.close(self.pidfd_open(os.getpid()))
            os.listdir("/proc/self/fd")
        except FileNotFoundError as error:
            return f"a zygote needs /proc: {error}"
        except Exception as error:
            return f"a zygote needs pidfds, which this Python cannot open: {type(error).__name__}: {error}"
        return None

    def load(self) -> list[str]:
        """Import all modules, and return warnings about what a fork breaks. Exits when an import fails."""
        module = self.hello["module"]
        watch = _watch.Watch()
        phase = "import"
        try:
            from hatchery import _worker

            sys.path[0:0] = _worker.search_path(self.hello["path"])
            allowed = self.hello["template"].get("allow", ())
            _errors.module, _errors.user_path = module, self.hello["path"]
            for name in [*self.hello["template"]["preload"], module]:
                __import__(name)
                watch.check(f"module {name!r}", allowed=name in allowed)
            phase = "on_preload"
            _hooks.preload()
            watch.check(f"an on_preload hook of module {module!r}", allowed=module in allowed)
        except BaseException as error:
            failure = _errors.of_exception("start", error)
            failure["phase"] = phase
            _serving.send_error(self.channel, 0, failure)
            sys.exit(_wire.EXIT_START_FAILED)
        self.shared = set(_watch.descriptors()) - self.own
        self.prepare()
        return watch.warnings

    def prepare(self) -> None:
        """Do the common part of each worker's start once, so that workers share the pages that it writes."""
        try:
            self.exports = _functions.prepare(self.hello)
            if self.hello.get("threads"):
                from hatchery import _threads

                _threads.need_ctypes()
        except Exception:
            self.exports = None  # each worker tries again, and reports the error
        if "logging" in sys.modules:
            from hatchery import _logs

            _logs.prepare(self.channel, self.hello["log_level"])

    def serve(self) -> _Forked | None:
        """Serve the host's requests. Returns the result of `fork` in a worker, None at the end of the template."""
        _signals.set_handler(_signal.SIGCHLD, self.child_ended)
        space = _socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS)
        tail = b""
        while True:
            data, ancillary, _, _ = self.socket.recvmsg(_READ_BYTES, space, _socket.MSG_CMSG_CLOEXEC)
            for level, kind, numbers in ancillary:
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                    fds = array.array("i")
                    fds.frombytes(numbers[: len(numbers) - len(numbers) % fds.itemsize])
                    self.received.extend(fds)
            if not data:
                return None
            tail += data
            while len(tail) >= _HEAD.size:
                length, kind, _, _, number, fork_id, _ = _HEAD.unpack_from(tail)
                if len(tail) < 4 + length:
                    break
                body, tail = tail[_HEAD.size : 4 + length], tail[4 + length :]
                if kind == FORK:
                    own = self.fork(fork_id, str(body, "utf-8"), number)
                    if own is not None:
                        return own
                elif kind == REAP:
                    self.dying.add(number)
                    self.reap()
                elif kind == _wire.SHUTDOWN:
                    return None
                else:
                    raise _wire.ProtocolError(f"a template accepts no frame of kind {kind}")

    def fork(self, fork_id: int, worker: str, count: int) -> _Forked | None:
        """Fork a worker. Returns its descriptors and exports in the worker, None in the template."""
        fds, self.received = self.received[:count], self.received[count:]
        if len(fds) < count:
            raise _wire.ProtocolError("a fork request came without its descriptors: raise the limit of open files")
        _flush()  # both processes would write what the buffers hold
        # Taken before the fork: descriptors that fork handlers open belong to the worker.
        former = _open_descriptors()
        try:
            pid = _signals.fork_worker(_fork)
        except OSError as error:
            self.tell(FORKED, 0, fork_id, {"error": str(error)})
            _close(fds)
            return None
        if pid == 0:
            try:
                return self.become_worker(fds, worker, former)
            except BaseException as error:
                os.write(2, f"hatchery: a forked worker failed: {error!r}\n".encode("utf-8", "backslashreplace"))
                os._exit(_wire.EXIT_CONNECTION)
        _move_to_own_group(pid)
        # The process id is not reused before the worker is reaped, and only the host requests that.
        pidfd = self.pidfd_open(pid)
        self.tell(FORKED, 0, fork_id, {"pid": pid}, pidfd)
        _close([*fds, pidfd])
        return None

    def become_worker(self, fds: list[int], worker: str, former: list[int]) -> _Forked:
        """Set up a forked worker: use its own descriptors and close those of the template."""
        channel_fd, stdout, stderr, *own = fds
        parent_death = own[1]
        # First, have the kernel kill this process when the host closes its end. The owner is set before the process
        # leaves the template's group, so that the host finds the process if the template dies before it sends FORKED.
        pid = os.getpid()
        fcntl.fcntl(parent_death, _F_SETSIG, _signal.SIGKILL)
        fcntl.fcntl(parent_death, fcntl.F_SETOWN, pid)
        fcntl.fcntl(parent_death, fcntl.F_SETFL, os.O_ASYNC)
        _move_to_own_group(0)
        fcntl.fcntl(parent_death, fcntl.F_SETOWN, -pid)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        self.socket.detach()
        keep = self.shared | {0, 1, 2, channel_fd, *own}
        _close([fd for fd in former if fd not in keep])
        _signals.set_handler(_signal.SIGCHLD, _signal.SIG_DFL)
        _children.forked()
        _title.show(worker, "starting")
        _reseed()
        if self.collects:
            gc.enable()
        os.set_blocking(channel_fd, True)
        self.channel.__init__(channel_fd)  # type: ignore[misc]  # other objects refer to this channel
        return own, self.exports

    def child_ended(self, *_: object) -> None:
        """Handle SIGCHLD. Does nothing in a new worker, which has this handler until its fork is complete."""
        if os.getpid() == self.pid:
            self.reap()

    def reap(self) -> None:
        """Reap the workers in `dying` that are dead."""
        # The signal handler calls this too, possibly during another run.
        self.again = True
        while self.again and not self.reaping:
            self.reaping, self.again = True, False
            for pid in list(self.dying):
                self.reap_one(pid)
            self.reaping = False

    def reap_one(self, pid: int) -> None:
        exited: dict[str, Any] = {}
        try:
            ended, status, usage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:
            pass  # code of the modules has reaped it
        else:
            if not ended:
                return  # SIGCHLD will tell
            exited = {"status": status, "max_rss_bytes": usage.ru_maxrss * 1024}
        self.dying.discard(pid)
        self.tell(EXITED, pid, 0, exited)

    def tell(self, kind: int, number: int, fork_id: int, body: dict[str, Any], fd: int | None = None) -> None:
        data = _values.encode_leniently(body)
        head = _HEAD.pack(_wire.HEADER_BYTES + len(data), kind, _wire.JSON, 0, number, fork_id, len(data))
        rights = [] if fd is None else [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [fd]))]
        # One write, so that a signal handler cannot interrupt the frame.
        self.socket.sendmsg([head + data], rights)


def _pidfd_open_by_number() -> Callable[[int], int]:
    """Return a replacement for `os.pidfd_open`, which is missing in a Python that was built on an old system."""
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long

    def pidfd_open(pid: int) -> int:
        fd: int = call(ctypes.c_long(_SYS_PIDFD_OPEN), ctypes.c_long(pid), ctypes.c_long(0))
        if fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return fd

    return pidfd_open


def _fork() -> int:
    if sys.version_info < (3, 12):
        return os.fork()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about threads, which `_watch` has reported
        return os.fork()


def _move_to_own_group(pid: int) -> None:
    """Put a process into a group of its own. Parent and child both do this, so neither waits for the other."""
    try:
        os.setpgid(pid, pid)
    except OSError:
        pass  # it is dead already


def _reseed() -> None:
    """Seed numpy's generator in each worker. `random`, `uuid`, `secrets`, `tempfile` and `ssl` do it themselves."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # the stream is missing, or user code has closed it


def _open_descriptors() -> list[int]:
    # The list contains the closed descriptor of the folder itself.
    return [fd for fd in map(int, os.listdir("/proc/self/fd")) if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _close(fds: list[int]) -> None:
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            continue  # a fork handler has closed it
