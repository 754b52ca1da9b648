"""The template: a process that has imported the user's modules once, and of which workers are forked.

It imports and never runs anything else. Everything happens on its one thread, which waits for the host's requests.
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

    _Own = tuple[list[int], Any]

# Kinds of frames that only host and template exchange.
FORK = 32  # host: fork a worker; comes with its descriptors
FORKED = 33  # template: here it is; comes with its pidfd
REAP = 34  # host: it has been killed, or has ended: take its exit status
EXITED = 35  # template: that status

# What a fork request brings: channel, standard output, standard error; and what the start of a program brings, too:
# pipe for stacks, lifeline, socket for memfds, and the mark of which calls have begun, if the worker may get several.
_MOST_DESCRIPTORS = 7
_HEAD = Struct(">IBBHIQI")
_READ_BYTES = 4096
_F_SETSIG = 10
_SYS_PIDFD_OPEN = 434  # on every architecture that Linux counts its newer calls alike on


def become(channel: _wire.Channel, hello: dict[str, Any], rss_bytes: Callable[[], int | None]) -> _Own:
    """Import what hello names, then serve as a template until the host wants no more.

    Returns only in a forked worker, with what is its own: its descriptors, as at the start of a program, and what the
    module exports, if that is known. `channel` is then its own.
    """
    _title.show(hello["worker"], "importing")
    template = _Template(channel, hello)
    began = perf_counter()
    cannot_fork = template.look_for_pidfds()
    if hello.get("stack_signal"):
        # While it imports, the host may ask what takes so long. A worker asks for its own pipe.
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
        ready["cannot_fork"] = cannot_fork  # the host only ends it
    # What is there now is nobody's garbage, and no collection of a worker writes to its pages.
    template.collects = gc.isenabled()
    gc.collect()
    gc.disable()
    gc.freeze()
    _title.show(hello["worker"], "template")
    channel.send(_wire.READY, 0, _values.encode_leniently(ready))
    own = template.serve()
    if own is None:
        # Not by `sys.exit`: what the modules registered for the exit is the workers' to run.
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
        # Told to be reaped, and not dead yet.
        self.dying: set[int] = set()
        self.reaping = self.again = False
        self.pid = os.getpid()
        # What belongs to the template alone.
        self.own = {channel.fd, self.socket.fileno()}
        self.own |= {hello[name] for name in ("stack_fd", "lifeline_fd", "fd_socket", "begun_fd")}
        # What the imports left open, which every worker has too.
        self.shared: set[int] = set()
        # What the module exports, if that is known.
        self.exports: Any = None

    def look_for_pidfds(self) -> str | None:
        """Find out how to open a pidfd. Return why no worker can be forked, if none can."""
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
        """Import all modules; what looks dangerous in them. Exits when an import fails."""
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
                watch.look(f"module {name!r}", allowed=name in allowed)
            phase = "on_preload"
            _hooks.preload()
            watch.look(f"an on_preload hook of module {module!r}", allowed=module in allowed)
        except BaseException as error:
            failure = _errors.of_exception("start", error)
            failure["phase"] = phase
            _serving.send_error(self.channel, 0, failure)
            sys.exit(_wire.EXIT_START_FAILED)
        self.shared = set(_watch.descriptors()) - self.own
        self.prepare()
        return watch.warnings

    def prepare(self) -> None:
        """Do once what each worker would do by itself, each on its own copies of the pages that this writes to."""
        try:
            self.exports = _functions.prepare(self.hello)
            if self.hello.get("threads"):
                from hatchery import _threads

                _threads.need_ctypes()
        except Exception:
            self.exports = None  # a worker will say what is wrong
        if "logging" in sys.modules:
            from hatchery import _logs

            _logs.prepare(self.channel, self.hello["log_level"])

    def serve(self) -> _Own | None:
        """Fork and reap as the host says. Returns what `fork` does in a worker, None in the template at its end."""
        _signals.set_handler(_signal.SIGCHLD, self.child_ended)
        space = _socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS)
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
                    raise _wire.ProtocolError(f"a frame of kind {kind} is not for a template")

    def fork(self, fork_id: int, worker: str, count: int) -> _Own | None:
        """Fork a worker. Returns what is the worker's own in the worker, None in the template."""
        fds, self.received = self.received[:count], self.received[count:]
        if len(fds) < count:
            raise _wire.ProtocolError("a fork without its descriptors; is this process at its limit of open files?")
        _flush()  # what is in the buffers would be written twice
        # Not what handlers of the fork open: that is the worker's.
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
        # It cannot be reaped before the host says so, so this is it and no other of the same number.
        pidfd = self.pidfd_open(pid)
        self.tell(FORKED, 0, fork_id, {"pid": pid}, pidfd)
        _close([*fds, pidfd])
        return None

    def become_worker(self, fds: list[int], worker: str, former: list[int]) -> _Own:
        """In a forked worker: take on what is its own, let go of what is the template's."""
        channel_fd, stdout, stderr, *own = fds
        lifeline = own[1]
        # First of all: whatever happens from here on, the host's end of the lifeline ends this process. That its owner
        # is set before it leaves the template's group lets the host find it if the template dies before it has told.
        pid = os.getpid()
        fcntl.fcntl(lifeline, _F_SETSIG, _signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, pid)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)
        _move_to_own_group(0)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -pid)
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
        self.channel.__init__(channel_fd)  # type: ignore[misc]  # others hold this object
        return own, self.exports

    def child_ended(self, *_: object) -> None:
        """Handle the signal that a child has ended, unless it is one of a worker whose fork handlers run yet."""
        if os.getpid() == self.pid:
            self.reap()

    def reap(self) -> None:
        """Take the exit status of those that the host is done with, as far as they are dead."""
        # The signal handler, too, comes here, and may come in the middle of it.
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
            pass  # the modules' code has taken it
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
        # One write, which a signal handler cannot come between.
        self.socket.sendmsg([head + data], rights)


def _pidfd_open_by_number() -> Callable[[int], int]:
    """Return what does as `os.pidfd_open`, which a Python lacks that was built on an old system."""
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
        warnings.simplefilter("ignore")  # of threads, which have been reported
        return os.fork()


def _move_to_own_group(pid: int) -> None:
    """Both sides of a fork do this, so that neither has to wait for the other."""
    try:
        os.setpgid(pid, pid)
    except OSError:
        pass  # it is dead already


def _reseed() -> None:
    """Give each worker random numbers of its own.

    `random`'s own generator, `uuid`, `secrets`, `tempfile` and `ssl` see to that by themselves.
    """
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # there is none, or user code closed it


def _open_descriptors() -> list[int]:
    # That of the folder itself is among them, and closed by now; it may be another's at any moment.
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
            continue  # a handler of the fork has closed it
