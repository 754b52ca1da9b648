"""Bytes and arrays: what crosses in either direction, in frames and in memfds, and what a broken host is told."""

from __future__ import annotations

import array
import ctypes
import fcntl
import json
import mmap
import os
import random
import socket
import struct
import sys
import unittest

from hatchery import _attachments, _values, _wire
from tests.support import CALL, CHUNK, ERROR, PROGRESS, RESULT, Worker

try:
    import numpy as np
except ImportError:
    np = None

needs_numpy = unittest.skipIf(np is None, "numpy is not installed for this Python: pip install numpy")
MIB = 1 << 20
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def encoded(value):
    """Return JSON, read, and the attachments as bytes."""
    body = _values.encode(value)
    if type(body) is bytes:
        return json.loads(body), []
    return json.loads(body.json), [bytes(data) for data in body.attachments]


def there_and_back(value):
    body = _values.encode(value)
    if type(body) is bytes:
        return json.loads(body)
    return _attachments.scan(body.json, tuple(memoryview(bytearray(data)) for data in body.attachments))


class Encoding(unittest.TestCase):
    def test_bytes_of_all_kinds(self):
        memory = mmap.mmap(-1, 4)
        memory[:] = b"data"
        kinds = [b"data", bytearray(b"data"), memoryview(b"data"), memoryview(b"d.a.t.a.")[::2], memory]
        kinds += [array.array("B", b"data"), (ctypes.c_char * 4)(*b"data"), type("Mine", (bytes,), {})(b"data")]
        for value in kinds:
            with self.subTest(type(value).__name__):
                self.assertEqual(encoded(value), ({"\0": [0]}, [b"data"]))
                self.assertEqual(encoded([1, {"k": value}]), ([1, {"k": {"\0": [0]}}], [b"data"]))
        self.assertEqual(encoded(b""), ({"\0": [0]}, [b""]))

    def test_buffers_of_numbers_are_arrays(self):
        order = "<" if sys.byteorder == "little" else ">"
        for code, dtype in [("b", "|i1"), ("h", "i2"), ("i", "i4"), ("q", "i8"), ("Q", "u8"), ("f", "f4"), ("d", "f8")]:
            value = array.array(code, [1, 2, 3])
            named = dtype if dtype[0] == "|" else order + dtype
            self.assertEqual(encoded(value), ({"\0": [0, named, [3]]}, [value.tobytes()]))
        long = array.array("l", [1])
        self.assertEqual(encoded(long)[0], {"\0": [0, f"{order}i{long.itemsize}", [1]]})
        grid = memoryview(b"abcdef").cast("B", (2, 3))
        self.assertEqual(encoded(grid), ({"\0": [0, "|u1", [2, 3]]}, [b"abcdef"]))
        self.assertEqual(encoded((ctypes.c_int16 * 2)(1, 2))[0], {"\0": [0, order + "i2", [2]]})
        self.assertEqual(encoded((ctypes.c_int16.__ctype_be__ * 2)(1, 2)), ({"\0": [0, ">i2", [2]]}, [b"\0\1\0\2"]))
        self.assertEqual(encoded(array.array("f")), ({"\0": [0, order + "f4", [0]]}, [b""]))

    def test_what_has_bytes_but_none_that_travel(self):
        class Point(ctypes.Structure):
            _fields_ = [("x", ctypes.c_int)]

        with self.assertRaisesRegex(_values.EncodeError, r"result\['p'\] is a .*Point with elements of format 'T{"):
            _values.encode({"p": Point(1)})
        with self.assertRaisesRegex(_values.EncodeError, "result has a key of type bytes"):
            _values.encode({b"k": 1})

    def test_names_that_look_like_placeholders(self):
        self.assertEqual(encoded({"\0": [0]}), ({"\0": [0]}, []))
        value = {"\0": [0], "\0\0": 1, "\0a": 2, "a\0": 3, "b": b"x"}
        self.assertEqual(encoded(value), ({"\0\0": [0], "\0\0\0": 1, "\0\0a": 2, "a\0": 3, "b": {"\0": [0]}}, [b"x"]))
        for value in ({"\0": b"x"}, [b"x", {"\0": {"\0": [0]}}], {"a": "\0", "b": b"x"}, {'\\"\0': b"x"}):
            self.assertEqual(there_and_back(value), value)

    def test_the_other_rules_hold_beside_bytes(self):
        self.assertEqual(encoded([b"x", float("nan"), (1,)]), ([{"\0": [0]}, None, [1]], [b"x"]))
        for value, message in [
            ([b"x", {1}], r"result\[1\] is a set"),
            ([b"x", 2**64], r"result\[1\] is an integer of 65 bits"),
            ([b"x", "\ud800"], r"result\[1\] has a lone surrogate"),
        ]:
            with self.assertRaisesRegex(_values.EncodeError, message):
                _values.encode(value)
        deep = b"x"
        for _ in range(120):
            deep = [deep]
        self.assertEqual(there_and_back(deep), deep)
        with self.assertRaisesRegex(_values.EncodeError, "deeper than 120"):
            _values.encode([deep])

    def test_too_many(self):
        with self.assertRaisesRegex(_values.EncodeError, "more than the 65535 bytes values"):
            _values.encode([b""] * 65536)
        self.assertEqual(len(_values.encode([b""] * 65535).attachments), 65535)

    def test_random_values_come_back(self):
        seed = int(os.environ.get("HATCHERY_SEED", random.SystemRandom().getrandbits(32)))
        rng = random.Random(seed)
        text = ["", "\0", "\0\0", "a", "\0a", '"', "\\", "\\u0000", '{"\0":[0]}']

        def value(depth):
            kind = rng.randrange(9 if depth else 6)
            if kind < 3:
                return [None, True, rng.randrange(-5, 5)][kind]
            if kind == 3:
                return rng.choice(text)
            if kind < 6:
                return rng.randbytes(rng.randrange(4)) if hasattr(rng, "randbytes") else os.urandom(2)
            if kind == 6:
                return [value(depth - 1) for _ in range(rng.randrange(4))]
            return {rng.choice(text): value(depth - 1) for _ in range(rng.randrange(4))}

        for _ in range(3000):
            made = value(4)
            self.assertEqual(there_and_back(made), made, f"HATCHERY_SEED={seed}")


@needs_numpy
class Numpy(unittest.TestCase):
    def test_arrays_of_all_layouts(self):
        base = np.arange(24, dtype="<i4").reshape(2, 3, 4)
        for value in [
            base,
            np.asfortranarray(base),
            base[:, ::-1, ::2],
            base.T,
            base[0, 0, 0:0],
            np.array(7.5),
            np.zeros((0, 3)),
            base.astype(">i4"),
            base.astype(">f8")[::2],
            base.astype("f2"),
            base.astype("c8"),
            base > 3,
            np.broadcast_to(np.int8(3), (2, 2)),
        ]:
            with self.subTest(value=value):
                back = there_and_back({"a": value})["a"]
                self.assertIs(type(back), np.ndarray)
                self.assertEqual((back.dtype.str, back.shape), (value.dtype.str, value.shape))
                np.testing.assert_array_equal(back, value)
                self.assertFalse(back.flags.writeable)
                self.assertTrue(back.flags.aligned)

    def test_arrays_that_do_not_travel(self):
        for value, message in [
            (np.array([1, "a", None], dtype=object), "dtype object: convert it"),
            (np.zeros(2, dtype=[("x", "i4"), ("y", "f8")]), "send its fields one by one"),
            (np.array(["2026-01-01"], dtype="M8[D]"), r'send .view\("i8"\) and the unit'),
            (np.array(["text"]), r"dtype <U4: convert it"),
            (np.ma.masked_array([1, 2], [True, False]), "is a masked numpy array: send"),
            (np.int64(1), "is a numpy.int64; JSON has no such type: convert it .*item"),
        ]:
            with self.assertRaisesRegex(_values.EncodeError, r"^result\[0\] " + f".*{message}"):
                _values.encode([value])


class Reading(unittest.TestCase):
    def read(self, text, *attachments):
        return _attachments.scan(text.encode(), tuple(memoryview(bytearray(data)) for data in attachments))

    def test_placeholders_that_are_none(self):
        for text in [
            "[1]",
            r'{"\u0000":[1]}',
            r'{"\u0000":[-1]}',
            r'[{"\u0000":[0]},{"\u0000":[0]}]',
            r'{"\u0000":0}',
            r'{"\u0000":[]}',
            r'{"\u0000":["0"]}',
            r'{"\u0000":[0],"a":1}',
            r'{"\u0000":[0,"<f4"]}',
            r'{"\u0000":[0,"<f4",[2]]}',
            r'{"\u0000":[0,"<f4",[-1,-1]]}',
            r'{"\u0000":[0,"|O4",[1]]}',
            r'{"\u0000":[0,"",[1]]}',
        ]:
            with self.subTest(text), self.assertRaises(_wire.ProtocolError):
                self.read(text, b"1234")

    def test_arrays_without_numpy_are_views(self):
        view = _attachments._view(struct.pack("=6f", *range(6)), _attachments._NATIVE + "f4", [2, 3])
        self.assertEqual((view.shape, view.tolist()), ((2, 3), [[0, 1, 2], [3, 4, 5]]))
        swapped = ">" if _attachments._NATIVE == "<" else "<"
        self.assertEqual(_attachments._view(b"1234", swapped + "i4", [1]).format, "B")
        self.assertEqual(len(_attachments._view(b"", "<f4", [0, 3])), 0)
        self.assertEqual(_attachments._view(struct.pack("=d", 2.5), _attachments._NATIVE + "f8", []).tolist(), 2.5)


def sealed(data: bytes, seals: int = SEALS) -> int:
    fd = os.memfd_create("host", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


class Host:
    """A worker, and the host's end of the socket for memfds."""

    def __init__(self, source: str, **hello) -> None:
        self.files: list[int] = []  # the inodes of the memfds of the last answer
        self.worker = Worker(source, **hello)
        self.fds = self.worker.memfds
        self.worker.ready()

    def __enter__(self):
        self.worker.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.worker.__exit__(*error)

    def send(self, call_id: int, body: str, *attachments, announced: int | None = None) -> None:
        """Send a call; an attachment that is a descriptor goes as a memfd."""
        fds = [part for part in attachments if isinstance(part, int)]
        if fds and announced is None:
            socket.send_fds(self.fds, [struct.pack(">Q", call_id)], fds)
        size = {fd: os.fstat(fd).st_size if announced is None else announced for fd in fds}
        lengths = [size[part] | 1 << 63 if isinstance(part, int) else len(part) for part in attachments]
        inline = b"".join(part for part in attachments if isinstance(part, bytes))
        data = body.encode()
        head = struct.pack(">BBHIQI", CALL, 1, len(attachments), 0, call_id, len(data))
        payload = head + struct.pack(f">{len(lengths)}Q", *lengths) + data + inline
        self.worker.send(struct.pack(">I", len(payload)) + payload)
        for fd in fds:
            os.close(fd)

    def answer(self):
        """Return kind, body, attachments; of those in memfds their bytes, after looking at the seals."""
        (length,) = struct.unpack(">I", self.worker._exactly(4))
        payload = self.worker._exactly(length)
        kind, _, count, _, call_id, size = struct.unpack_from(">BBHIQI", payload)
        lengths = struct.unpack_from(f">{count}Q", payload, 20)
        at = 20 + 8 * count
        body = json.loads(payload[at : at + size])
        at += size
        fds = []
        self.files = []
        self.attachments_at = at
        if any(length >> 63 for length in lengths):
            data, fds, _, _ = socket.recv_fds(self.fds, 100, 253, socket.MSG_DONTWAIT)
            assert data == struct.pack(">Q", call_id)
        attachments = []
        for length in lengths:
            if length >> 63:
                fd = fds.pop(0)
                assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == SEALS
                self.files.append(os.fstat(fd).st_ino)
                attachments.append(os.pread(fd, length ^ 1 << 63, 0))
                os.close(fd)
            else:
                attachments.append(payload[at : at + length])
                at += length
        assert not fds
        assert at == len(payload)
        return kind, body, attachments


ECHO = """
import os
kept = []
def echo(*args): return args
def kinds(*args): return [f"{type(a).__name__} {len(a)} {getattr(a, 'readonly', None)}" for a in args]
def keep(data): kept.append(data[1:])
def look(): return [bytes(data[:4]).decode() for data in kept]
def fds(): return len(os.listdir("/proc/self/fd"))
def write(data): data[0] = 1
def items(data):
    yield data
    yield {"again": data}
async def later(data): return data
def tell(data):
    import hatchery
    hatchery.progress([data])
"""


@unittest.skipUnless(hasattr(socket, "send_fds"), "this Python's socket module cannot send descriptors (3.9 can)")
class Serving(unittest.TestCase):
    def test_all_sizes_come_and_go(self):
        with Host(ECHO) as host:
            for call_id, size in enumerate([0, 1, 70_000, MIB - 1, MIB, MIB + 1, 5 * MIB], 1):
                data = os.urandom(size)
                part = sealed(data) if size >= MIB else data
                host.send(call_id, r'["echo",[1,{"\u0000":[0]}],null]', part)
                self.assertEqual(host.answer(), (RESULT, [1, {"\0": [0]}], [data]))
            host.send(99, r'["kinds",[{"\u0000":[0]},{"\u0000":[1]}],null]', b"12", sealed(bytes(MIB)))
            self.assertEqual(host.answer()[1], ["bytes 2 None", f"memoryview {MIB} True"])

    def test_a_view_outlives_its_call_and_cannot_be_written(self):
        with Host(ECHO) as host:
            before = host.worker.call("fds")
            host.send(10, r'["keep",[{"\u0000":[0]}],null]', sealed(b"kept!" + bytes(MIB)))
            self.assertEqual(host.answer()[:2], (RESULT, None))
            for call_id in range(11, 20):
                host.send(call_id, r'["write",[{"\u0000":[0]}],null]', sealed(bytes(MIB)))
                self.assertEqual(host.answer()[1]["type"], "TypeError")
            self.assertEqual(host.worker.call("look"), ["ept!"])
            # One for the memory that is kept, and the first memfd's import leaves nothing.
            self.assertLessEqual(host.worker.call("fds"), before + 2)

    def test_large_bytes_in_a_frame_are_read_only_views(self):
        with Host(ECHO) as host:
            host.send(10, r'["kinds",[{"\u0000":[0]},{"\u0000":[1]}],null]', bytes(MIB), b"12")
            self.assertEqual(host.answer()[1], [f"memoryview {MIB} True", "bytes 2 None"])
            host.send(11, r'["keep",[{"\u0000":[0]}],null]', b"kept!" + bytes(MIB - 5))
            self.assertEqual(host.answer()[:2], (RESULT, None))
            for call_id in range(12, 20):  # of the same length, for which that memory must not be taken
                data = os.urandom(MIB)
                host.send(call_id, r'["echo",[{"\u0000":[0]},{"\u0000":[1]}],null]', data, data[::-1])
                self.assertEqual(host.answer(), (RESULT, [{"\0": [0]}, {"\0": [1]}], [data, data[::-1]]))
            host.send(30, r'["write",[{"\u0000":[0]}],null]', bytes(MIB))
            self.assertEqual(host.answer()[1]["type"], "TypeError")
            self.assertEqual(host.worker.call("look"), ["ept!"])

    def test_the_whole_of_a_memfd_goes_back_as_it_is(self):
        source = ECHO + "def other(data): return [data[1:], bytes(data)]\ndef kept_one(): return kept_whole.pop()\n"
        source += "kept_whole = []\ndef keep_whole(data): kept_whole.append(data)\n"
        with Host(source) as host:
            before = host.worker.call("fds")
            data = os.urandom(MIB)
            fd = sealed(data)
            file = os.fstat(fd).st_ino
            kept = os.dup(fd)
            host.send(10, r'["echo",[{"\u0000":[0]},7],null]', fd)
            self.assertEqual(host.answer(), (RESULT, [{"\0": [0]}, 7], [data]))
            self.assertEqual(host.files, [file])
            host.send(11, r'["keep_whole",[{"\u0000":[0]}],null]', os.dup(kept))
            self.assertEqual(host.answer()[:2], (RESULT, None))
            self.assertEqual(host.worker.call("fds"), before + 1)
            host.send(12, '["kept_one",null,null]')
            self.assertEqual((host.answer()[2], host.files), ([data], [file]))
            host.send(13, r'["other",[{"\u0000":[0]}],null]', os.dup(kept))
            self.assertEqual((host.answer()[2], host.files), ([data[1:], data], []))
            os.close(kept)
            self.assertEqual(host.worker.call("fds"), before)

    @needs_numpy
    def test_the_whole_of_an_array_goes_back_as_it_is(self):
        source = ECHO + "def turned(array): return array[::-1]\n"
        source += "def shaped(array): return array.reshape(2, -1).view('u8')\n"
        with Host(source) as host:
            data = os.urandom(MIB)
            kept = sealed(data)
            file = os.fstat(kept).st_ino
            for call_id, (function, whole) in enumerate([("echo", True), ("shaped", True), ("turned", False)], 1):
                host.send(call_id, f'["{function}",[{{"\\u0000":[0,"<u8",[{MIB // 8}]]}}],null]', os.dup(kept))
                self.assertEqual((len(host.answer()[2][0]), host.files), (MIB, [file] if whole else []))
            os.close(kept)

    def test_a_descriptor_that_user_code_closed_is_not_sent(self):
        source = """
            import os
            kept = []
            def keep(data): kept.append(data)
            def close():
                fd = kept[0].obj.fd
                os.close(fd)
                other = os.open(os.devnull, os.O_RDONLY)
                os.dup2(other, fd)
            def give(): return kept[0]
        """
        with Host(source) as host:
            data = os.urandom(MIB)
            host.send(10, r'["keep",[{"\u0000":[0]}],null]', sealed(data))
            self.assertEqual(host.answer()[:2], (RESULT, None))
            host.worker.call("close")
            host.send(99, '["give",null,null]')
            self.assertEqual((host.answer()[2], host.files), ([data], []))

    def test_what_a_frame_does_not_hold_goes_in_memfds(self):
        with Host(ECHO + "def make(size): return [b'x', bytearray(size)]", max_frame_bytes=1 << 16) as host:
            host.send(1, f'["make",[{MIB}],null]')
            self.assertEqual((host.answer()[2], len(host.files)), ([b"x", bytes(MIB)], 1))
        with Host(ECHO + "def make(size): return [b'x', bytearray(size)]") as host:
            host.send(1, f'["make",[{32 * MIB}],null]')
            self.assertEqual((len(host.answer()[2][1]), len(host.files)), (32 * MIB, 1))
            host.send(2, f'["make",[{31 * MIB}],null]')
            self.assertEqual((len(host.answer()[2][1]), len(host.files)), (31 * MIB, 0))

    def test_large_bytes_are_aligned(self):
        with Host("def make(text): return [text, bytearray(1 << 20)]") as host:
            for call_id, text in enumerate(["", "a", "abcdefghi"], 1):
                host.send(call_id, f'["make",["{text}"],null]')
                self.assertEqual(host.answer()[1], [text, {"\0": [0]}])
                self.assertEqual(host.attachments_at % 16, 0)

    def test_coroutines_with_bytes_need_no_thread(self):
        source = """
            import asyncio, threading
            event = threading.Event()
            def wait(): return event.wait(20)
            async def let_go(data):
                await asyncio.sleep(0)
                event.set()
                return data
        """
        for data in (b"small", bytes(MIB)):
            with Host(source, in_flight=4, threads=1) as host:
                host.send(1, '["wait",null,null]')
                host.send(2, r'["let_go",[{"\u0000":[0]}],null]', data)
                answers = [host.answer(), host.answer()]  # the thread may be first, once it is let go
                self.assertCountEqual(answers, [(RESULT, {"\0": [0]}, [data]), (RESULT, True, [])])

    def test_coroutines_with_bytes_run_concurrently(self):
        source = """
            import asyncio
            here = 0
            async def meet(data):
                global here
                here += 1
                while here < 3: await asyncio.sleep(0.001)
                return data
            def slow(): return here
        """
        with Host(source, in_flight=4) as host:
            for call_id, data in enumerate([b"1", bytes(MIB), b"3"], 1):
                host.send(call_id, r'["meet",[{"\u0000":[0]}],null]', data)
            self.assertEqual(sorted(len(host.answer()[2][0]) for _ in range(3)), [1, 1, MIB])

    def test_streams_progress_and_coroutines(self):
        with Host(ECHO) as host:
            data = os.urandom(MIB)
            host.send(1, r'["items",[{"\u0000":[0]}],null,{"credit":5}]', sealed(data))
            self.assertEqual(host.answer(), (CHUNK, {"\0": [0]}, [data]))
            self.assertEqual(host.answer(), (CHUNK, {"again": {"\0": [0]}}, [data]))
            self.assertEqual(host.worker.receive()[0], 7)
            host.send(2, r'["later",[{"\u0000":[0]}],null]', b"small")
            self.assertEqual(host.answer(), (RESULT, {"\0": [0]}, [b"small"]))
            host.send(3, r'["tell",[{"\u0000":[0]}],null,{"progress":true}]', b"small")
            self.assertEqual(host.answer(), (PROGRESS, [{"\0": [0]}], [b"small"]))
            self.assertEqual(host.answer(), (RESULT, None, []))

    def test_more_than_fit_one_message_go_within_the_frame(self):
        with Host("def many(): return [bytes(1 << 20)] * 252") as host:
            host.send(1, '["many",null,null]')
            kind, body, attachments = host.answer()
            self.assertEqual((kind, len(body), {len(data) for data in attachments}), (RESULT, 252, {MIB}))

    def test_result_over_the_limit_fails_and_closes_memfds(self):
        source = ECHO + "def large(): return [bytes(1 << 20), *[bytes((1 << 20) - 1)] * 64]"
        with Host(source) as host:
            before = host.worker.call("fds")
            kind, body = host.worker.answer(host.worker.send_call("large"))
            self.assertEqual((kind, body["kind"]), (ERROR, "frame_too_large"))
            self.assertEqual(host.worker.call("fds"), before)

    def test_what_no_good_host_sends(self):
        placeholder = r'["echo",[{"\u0000":[0]}],null]'

        def no_memfd(host):
            host.send(1, placeholder, os.open(__file__, os.O_RDONLY))

        def unsealed(host):
            host.send(1, placeholder, sealed(bytes(MIB), fcntl.F_SEAL_SHRINK))

        def not_sent(host):
            host.send(1, placeholder, sealed(bytes(MIB)), announced=MIB)

        def short(host):
            fd = sealed(bytes(MIB))
            socket.send_fds(host.fds, [struct.pack(">Q", 1)], [fd])
            host.send(1, placeholder, fd, announced=MIB + 1)

        def of_another_call(host):
            fd = sealed(bytes(MIB))
            socket.send_fds(host.fds, [struct.pack(">Q", 2)], [fd])
            host.send(1, placeholder, fd, announced=MIB)

        def unnamed(host):
            host.send(1, '["echo",null,null]', b"x")

        for wrong in (no_memfd, unsealed, not_sent, short, of_another_call, unnamed):
            with self.subTest(wrong.__name__), Host(ECHO) as host:
                wrong(host)
                kind, call_id, body = host.worker.receive()
                self.assertEqual((kind, call_id, body["kind"]), (ERROR, 0, "protocol"), body)
                self.assertEqual(host.worker.end(), _wire.EXIT_PROTOCOL)

    def test_memfd_that_cannot_be_mapped_is_an_error_of_its_call(self):
        source = ECHO + (
            "def limit():\n"
            "    import resource\n"
            "    with open('/proc/self/statm') as statm:\n"
            "        size = int(statm.read().split()[0]) * resource.getpagesize() + (32 << 20)\n"
            "    resource.setrlimit(resource.RLIMIT_AS, (size, size))\n"
        )
        with Host(source) as host:
            host.worker.call("limit")
            before = host.worker.call("fds")
            host.send(77, r'["echo",[{"\u0000":[0]}],null]', sealed(bytes(64 * MIB)))
            kind, call_id, body = host.worker.receive()
            self.assertEqual((kind, call_id, body["kind"]), (ERROR, 77, "decode"), body)
            self.assertIn("cannot be mapped", body["message"])
            self.assertEqual(host.worker.call("fds"), before)


if __name__ == "__main__":
    unittest.main()
