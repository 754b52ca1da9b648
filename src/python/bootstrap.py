"""Takes the package from fd 0 and becomes a worker. It is compiled at each start, so it is short.

The host runs `PYTHON -c STUB NAME`. The stub takes the current directory from the search path, since it must not shadow
the standard library, and reads this file from fd 0. It leaves `r`, which reads on, `s`, which is `_socket`, and `m`:
the first message as it was received, with which the worker's descriptors came.
"""
# mypy: disable-error-code="name-defined"
# ruff: noqa: F821 - names of the stub

import sys
from _frozen_importlib_external import MAGIC_NUMBER
from marshal import loads

if m[2] & s.MSG_CTRUNC:
    sys.stderr.write("hatchery: a worker's descriptors got lost: it may open too few files (see `ulimit -n`)\n")
    sys.exit(74)  # the channel failed
size = int.from_bytes(r(4), "big")
package = r(size)
if not package or len(package) < size:
    sys.exit(0)  # the host went away before it had sent everything
if package[:4] != MAGIC_NUMBER:
    sys.stderr.write("hatchery: this package was compiled by another Python than " + sys.executable + "\n")
    sys.exit(78)  # what the host knows as EXIT_WRONG_PACKAGE
codes, archive = loads(memoryview(package)[4:])
del package
finder = {"__name__": "hatchery._embedded"}
exec(loads(codes["hatchery._embedded"]), finder)
finder["install"](codes)  # type: ignore[operator]

from hatchery._worker import main  # noqa: E402

main(archive, [fd for _, _, rights in m[1] for fd in memoryview(rights).cast("i")])
