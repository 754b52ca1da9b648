"""The life of a worker: imports the user's module, sends `ready`, serves, runs the stop hooks. The bootstrap calls it.

A template of a zygote starts here too, see `_zygote`.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from _contextvars import copy_context
from time import perf_counter

from hatchery import (
    _calls,
    _children,
    _descriptors,
    _errors,
    _functions,
    _hooks,
    _serving,
    _signals,
    _title,
    _tracker,
    _values,
    _wire,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _take_descriptors() -> _wire.Channel:
    """Move the socket away from fd 0, where user code would read from it."""
    fd = os.dup(0)
    os.set_blocking(fd, True)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # The host reads UTF-8 lines, whatever the locale is.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    return _wire.Channel(fd)


def _leave_terminal() -> None:
    """Give up the controlling terminal: a password prompt there would make the kernel stop the process group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return  # no controlling terminal
    try:
        from fcntl import ioctl
        from termios import TIOCNOTTY

        ioctl(terminal, TIOCNOTTY)
    except (ImportError, OSError):
        pass
    finally:
        os.close(terminal)


def _rss_bytes() -> int | None:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _read_hello(channel: _wire.Channel) -> dict[str, Any] | None:
    """Wait for the `hello` frame; None when the host closed the socket."""
    frame = channel.receive()
    if frame is None:
        return None
    if frame[0] != _wire.HELLO:
        raise _wire.ProtocolError(f"the first frame is of kind {frame[0]}, not hello")
    try:
        hello: dict[str, Any] = _values.scan(str(frame[4], "utf-8"), 0)[0]
        spoken = hello["protocol"]
        max_frame_bytes = int(hello["max_frame_bytes"])
    except Exception as error:
        raise _wire.ProtocolError(f"hello cannot be read: {type(error).__name__}: {error}") from error
    if spoken != _wire.PROTOCOL:
        raise _wire.ProtocolError(f"the host speaks protocol {spoken}, this package speaks {_wire.PROTOCOL}")
    if max_frame_bytes < _wire.MIN_FRAME_LIMIT_BYTES:
        raise _wire.ProtocolError(f"a limit of {max_frame_bytes} bytes is under {_wire.MIN_FRAME_LIMIT_BYTES}")
    channel.max_frame_bytes = max_frame_bytes
    return hello


def _take_signals(channel: _wire.Channel, hello: dict[str, Any]) -> None:
    """Install the handlers of the host's two signals: one follows a cancel, the other asks for a stack dump."""
    main = _calls.main
    main.channel = channel
    os.register_at_fork(after_in_child=main.forked)
    channel.fd_socket = hello["fd_socket"]
    if hello.get("cancel_signal"):
        main.cancel_signal = hello["cancel_signal"]
        _signals.set_handler(main.cancel_signal, main.on_signal)
    if hello.get("stack_signal"):
        fd = hello["stack_fd"]
        os.set_blocking(fd, False)  # a full pipe must not block the process
        faulthandler.register(hello["stack_signal"], fd, all_threads=False, chain=False)
    tell = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not main.on_unraisable(unraisable):
            tell(unraisable)

    sys.unraisablehook = hook


def search_path(given: list[str | list[int]]) -> list[str]:
    """Return the folders that `.path()` names. Raises `FileNotFoundError` when one does not exist.

    A name that is not UTF-8 comes as a list of bytes. The names are decoded as the file system's encoding requires.
    """
    folders = [os.fsdecode(folder.encode() if isinstance(folder, str) else bytes(folder)) for folder in given]
    for folder in folders:
        if not os.path.isdir(folder) and not _is_archive(folder):
            what = "is neither a directory nor a zip archive" if os.path.exists(folder) else "does not exist"
            raise FileNotFoundError(
                f"{folder!r}, given to .path(), {what} (the worker's working directory is {os.getcwd()!r})"
            )
    return folders


def _is_archive(path: str) -> bool:
    from zipimport import zipimporter

    try:
        zipimporter(path)
    except Exception:
        return False
    return True


def _start(worker: _serving.Worker, hello: dict[str, Any]) -> None:
    """Import the module and send `ready`. Sends the error and exits when that fails."""
    channel = worker.channel
    phase = "import"
    try:
        sys.path[0:0] = search_path(hello["path"])
        _errors.module = hello["module"]
        _errors.user_path = hello["path"] or _errors.user_path  # a forked worker keeps those of its template
        began = perf_counter()
        __import__(hello["module"])
        phase = "on_preload"
        _hooks.preload()
        import_ms = (perf_counter() - began) * 1000
        phase = "setup"
        codec = hello.get("codec", "json")
        if codec == "auto":
            _values.look_for_codecs()
        elif codec != "json":
            from hatchery import _codecs

            _codecs.choose(codec)
        if worker.pool is not None:
            from hatchery import _threads

            _threads.need_ctypes()
        functions, descriptions = hello.get("exports") or _functions.prepare(hello)
        phase = "on_start"
        for hook in _hooks.start_hooks:
            worker.run_to_end(None, hook)
        _calls.base_context = copy_context()
        _hooks.started = True
        phase = "setup"
        ready = {
            "protocol": _wire.PROTOCOL,
            "pid": os.getpid(),
            "python": ".".join(map(str, sys.version_info[:3])),
            "functions": descriptions,
            "rss_bytes": _rss_bytes(),
            "import_ms": round(import_ms, 3),
        }
        _title.show(hello["worker"], "serving")
        channel.send(_wire.READY, 0, _values.encode_leniently(ready))
    except BaseException as error:
        failure = _errors.of_exception("start", error)
        failure["phase"] = phase
        _serving.send_error(channel, 0, failure)
        sys.exit(_wire.EXIT_START_FAILED)
    worker.functions = functions
    worker.wants_logging()


def _serve_host(channel: _wire.Channel, fds: list[int]) -> None:
    hello = _read_hello(channel)
    if hello is None:
        return
    hello.update(_descriptors.named(fds))
    if "template" in hello:
        from hatchery import _zygote

        # Returns in a forked worker only.
        fds, exports = _zygote.serve_template(channel, hello, _rss_bytes)
        hello = _read_hello(channel)
        if hello is None:
            return
        hello.update(_descriptors.named(fds), exports=exports)
    name = hello["worker"]
    os.environ[_calls.WORKER] = name
    _title.show(name, "starting")
    try:
        _take_signals(channel, hello)
        worker = _serving.Worker(channel, hello)
    except Exception as error:
        raise _wire.ProtocolError(f"hello cannot be followed: {type(error).__name__}: {error}") from error
    _start(worker, hello)
    try:
        worker.serve()
        if channel.fd >= 0:
            _title.show(name, "stopping")
        worker.stop()
    finally:
        if channel.fd >= 0:  # else user code has forked this process, and only the parent ends the worker
            worker.close()


def _end(problem: str, code: int, *, forked: bool = False) -> None:
    try:
        os.write(2, f"hatchery: {problem}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # user code has closed it
    if forked:
        try:
            sys.stdout.flush()
        finally:
            os._exit(code)  # closing an event loop would unregister the descriptors that its parent shares
    sys.exit(code)


def main(archive: bytes, fds: list[int]) -> None:
    """Serve the host at fd 0. Returns after an orderly end, else exits with an exit code of `_wire`.

    `archive` is the package for child processes, `fds` the descriptors that came with the first bytes.
    """
    _descriptors.close_inherited()
    sys.argv = ["hatchery-worker"]
    _signals.install()
    _leave_terminal()
    channel = _take_descriptors()
    _children.make_importable(archive)
    _tracker.install()
    try:
        _serve_host(channel, fds)
    except _wire.ProtocolError as error:
        try:
            _serving.send_error(channel, 0, {"kind": "protocol", "message": str(error)})
        except OSError:
            pass  # the host has closed the connection
        _end(str(error), _wire.EXIT_PROTOCOL)
    except OSError as error:
        _end(f"the connection to the host failed: {error}", _wire.EXIT_CONNECTION, forked=channel.fd < 0)
