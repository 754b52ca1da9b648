# Run once for each interpreter by the host, as `PYTHON -c THIS`, with {"module name": "source", ...} as JSON on stdin.
# Prints one line, HATCHERY-PROBE and JSON: version, executable, and from Python 3.9 on the package as marshalled code in hex.
# Other lines on stdout are the machine's own (a chatty sitecustomize). Must parse and run on any Python, 2.7 included.
import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]
import json
import os

facts = {"version": list(sys.version_info[:3]), "executable": sys.executable or ""}
sources = sys.stdin.read() if sys.version_info < (3,) else sys.stdin.buffer.read().decode("utf-8")
if sys.version_info >= (3, 9):
    import marshal

    from _frozen_importlib_external import MAGIC_NUMBER

    facts["executable"] = facts["executable"].encode("utf-8", "replace").decode("utf-8")
    codes = {}
    for name, source in json.loads(sources).items():
        last = name.rpartition(".")[2] if "." in name else "__init__"
        codes[name] = compile(source, "<hatchery>/" + last + ".py", "exec", dont_inherit=True)
    facts["code"] = (MAGIC_NUMBER + marshal.dumps(codes)).hex()
sys.stdout.flush()
# Not by `sys.stdout`: unbuffered (PYTHONUNBUFFERED), it takes a write that a stop and continue cut short for a whole one.
answer = ("\nHATCHERY-PROBE " + json.dumps(facts) + "\n").encode("ascii")
while answer:
    answer = answer[os.write(1, answer) :]
