# Run once for each interpreter by the host, as `PYTHON -c THIS`, with {"module name": "source", ...} as JSON on stdin.
# Prints one line, HATCHERY-PROBE and JSON: version, executable (its bytes in hex), and from Python 3.9 on the package in
# hex: what marks this Python's bytecode, then, marshalled, the marshalled code by module name and a zip archive of the
# modules that child processes of a worker import.
# Other lines on stdout are the machine's own (a chatty sitecustomize). Must parse and run on any Python, 2.7 included.
import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]
import binascii
import json
import os

executable = sys.executable or ""
if not isinstance(executable, bytes):
    executable = os.fsencode(executable)
facts = {"version": list(sys.version_info[:3]), "executable": binascii.hexlify(executable).decode("ascii")}
if sys.version_info >= (3, 9):
    import _socket

    # The first byte brings a descriptor that is to be kept open: by it the kernel ends this process with the host. An
    # older Python loses it, but has nothing left to do.
    stdin = _socket.socket(fileno=0)
    stdin.recvmsg(1, 64, _socket.MSG_CMSG_CLOEXEC)
    stdin.detach()
sources = sys.stdin.read() if sys.version_info < (3,) else sys.stdin.buffer.read().decode("utf-8")
if sys.version_info >= (3, 9):
    import io
    import marshal
    import zipfile
    from _frozen_importlib_external import MAGIC_NUMBER

    try:
        import zlib

        method = zipfile.ZIP_DEFLATED
    except ImportError:
        method = zipfile.ZIP_STORED
    codes = {}
    # What `import hatchery` takes outside of a worker. To pack all modules would take a fifth of this program's time.
    lent = ("__init__", "_calls", "_hooks", "_host", "_values", "_wire")
    archive = io.BytesIO()
    # The code is marked as one whose source need not be looked at; the sources are for other versions of Python.
    head = MAGIC_NUMBER + b"\1\0\0\0" + bytes(8)
    with zipfile.ZipFile(archive, "w", method) as files:
        for name, source in json.loads(sources).items():
            last = name.rpartition(".")[2] if "." in name else "__init__"
            code = compile(source, "<hatchery>/" + last + ".py", "exec", dont_inherit=True)
            codes[name] = marshal.dumps(code)
            if last in lent:
                files.writestr("hatchery/" + last + ".pyc", head + codes[name])
                files.writestr("hatchery/" + last + ".py", source)
    facts["package"] = (MAGIC_NUMBER + marshal.dumps((codes, archive.getvalue()))).hex()
sys.stdout.flush()
# Not by `sys.stdout`: unbuffered (PYTHONUNBUFFERED), it takes a write that a stop and continue cut short for a whole one.
answer = ("\nHATCHERY-PROBE " + json.dumps(facts) + "\n").encode("ascii")
while answer:
    answer = answer[os.write(1, answer) :]
