"""Whatever reads and writes JSON, the values that cross are the same, and so are the errors of those that do not."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import importlib.util
import json
import os
import random
import unittest
import uuid

from hatchery import _codecs, _values, _wire
from tests.support import Worker

CODECS = ("orjson", "msgspec")
MISSING = [name for name in CODECS if importlib.util.find_spec(name) is None]
needs_codecs = unittest.skipIf(
    MISSING, f"{' and '.join(MISSING)} cannot be imported by this Python: pip install {' '.join(MISSING)}"
)
NAN, INF = float("nan"), float("inf")


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Word(str):
    __slots__ = ()


class Pairs(dict):
    pass


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024


@dataclasses.dataclass
class Data:
    x: int = 1


def nested(depth: int, inner: object = None) -> object:
    for _ in range(depth):
        inner = [inner] if depth % 2 else {"k": inner}
    return inner


LEAVES = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 10**30, 0.0, -0.0, 1e16, 1e22,
    5e-324, 1.7976931348623157e308, 0.1, 123456789012345680.0,
    NAN, INF, -INF, "", "a", "\0", "\x7f", "\x1f", "\u2028", "é",
    "\U0001f44b", "\ud800", "a\udcff", "\\", '"', "[[[[", '"}{"', "\\u0000", b"", b"bytes", bytearray(b"b"), Word("w"),
    Number.ONE, Colour.RED, uuid.UUID(int=1), dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc),
    dt.date(2026, 1, 2), dt.time(1), dt.timedelta(1),
    decimal.Decimal("1.5"), 1j, {1, 2}, frozenset(), Point(1, 2), Pairs(a=1), Data(), object(), len, ...,
    range(3),
    (1, (2,)), [], {}, (), NotImplemented, int, collections.OrderedDict(a=1), collections.Counter("a"),
]  # fmt: skip
KEYS = [
    "",
    "a",
    "k",
    "\0",
    "\0\0",
    1,
    -1,
    1.5,
    1e16,
    NAN,
    None,
    True,
    Word("w"),
    b"k",
    (1,),
    Number.ONE,
    "\ud800",
    2**70,
]
HOSTILE = [
    *LEAVES,
    *[[leaf, 1] for leaf in LEAVES],
    *[{"k": leaf} for leaf in LEAVES],
    *[{key: 1} for key in KEYS],
    *[{key: [b"x"]} for key in KEYS],
    *[nested(depth) for depth in (118, 119, 120, 121, 122, 253, 254, 255, 256, 400)],
    *[["[" * 130, nested(depth), '"', "\\"] for depth in (117, 118, 119, 120)],
    [[]] * 500,
    {str(number): {"a": [{}]} for number in range(300)},
]


def with_codec(name: str):
    """Make this process a worker that uses the codec, from the first byte on."""
    _values.fast_encode = _values.fast_decode = _values.consider = None
    _values.large_bytes = _values.NEVER
    _codecs.choose(name)
    if name != "json":
        _values.large_bytes = 0


def written(value: object):
    """Return what arrives at the host; or the error."""
    try:
        body = _values.encode(value)
    except _values.EncodeError as error:
        return str(error)
    json_text, attachments = (body, []) if type(body) is bytes else (body.json, body.attachments)
    return json.loads(json_text, parse_constant=self_check), [bytes(data) for data in attachments]


def self_check(name: str):
    raise AssertionError(f"{name} is no JSON")


@needs_codecs
class Equal(unittest.TestCase):
    def tearDown(self) -> None:
        with_codec("json")

    def check(self, values) -> None:
        with_codec("json")
        expected = [repr(written(value)) for value in values]
        for codec in CODECS:
            with_codec(codec)
            for value, wanted in zip(values, expected):
                # repr tells True from 1, and -0.0 from 0.0
                got = repr(written(value))
                if got != wanted:
                    self.fail(f"{codec}: {value!r:.200}\n{got[:300]}\n{wanted[:300]}")

    def test_hostile_values_are_written_the_same(self) -> None:
        self.check(HOSTILE)

    def test_random_values_are_written_the_same(self) -> None:
        seed = int(os.environ.get("HATCHERY_SEED", random.SystemRandom().getrandbits(32)))
        rng = random.Random(seed)
        plain = LEAVES[:38]

        def value(depth: int):
            kind = rng.randrange(5 if depth else 2)
            if kind < 2:
                return rng.choice(plain if rng.random() < 0.95 else LEAVES)
            if kind == 2:
                return [value(depth - 1) for _ in range(rng.randrange(5))]
            if kind == 3:
                return tuple(value(depth - 1) for _ in range(rng.randrange(3)))
            keys = KEYS[:5] if rng.random() < 0.95 else KEYS
            return {rng.choice(keys): value(depth - 1) for _ in range(rng.randrange(5))}

        try:
            self.check([value(5) for _ in range(2000)])
        except AssertionError as error:
            raise AssertionError(f"HATCHERY_SEED={seed}: {error}") from None

    def test_what_the_host_sends_is_read_the_same(self) -> None:
        texts = [
            "[]", "null", "0", "-0", "-0.0", "1e400", "1E5", "18446744073709551615", "-9223372036854775808", "1.5",
            '"\\u0000\\ud83d\\udc4b"', '{"a":1,"a":2}', '{"":{}}', "[ 1 , 2 ]", '"\\u2028"', '"\x7f"', "[[[]]]",
            "0.1", "1e-400", "123456789012345678901234567890.0", "5e-324", '{"\\u0000":[0]}', "true", "false",
            "[" * 120 + "]" * 120, '{"k":' * 120 + "1" + "}" * 120,
        ]  # fmt: skip
        broken = ["", "[", "[1]x", "NaN", "[1,]", "{1:2}", "'a'", "nul", '"\x01"', "\ufeff[]", "01", "+1", ".5"]
        for text in texts:
            with_codec("json")
            wanted = repr(_values.read(text.encode()))
            for codec in CODECS:
                with_codec(codec)
                for body in (text.encode(), bytearray(text.encode()), memoryview(text.encode())):
                    self.assertEqual(repr(_values.read(body)), wanted, (codec, text[:100]))
        for text in broken:
            errors = set()
            for codec in ("json", *CODECS):
                with_codec(codec)
                try:
                    errors.add(repr(_values.read(text.encode())))
                except (ValueError, StopIteration) as error:
                    errors.add(repr(error))
            self.assertEqual(len(errors), 1, (text, errors))

    def test_auto_waits_for_a_large_body(self) -> None:
        with_codec("auto")
        _values.large_bytes = _values.LARGE_BYTES
        _values.encode([1])
        _values.read(b"[1]")
        self.assertIsNone(_values.fast_decode)
        _values.encode(["x" * _values.LARGE_BYTES])
        self.assertIsNotNone(_values.fast_encode)
        self.assertEqual(_values.encode({"a": [1.5]}), b'{"a":[1.5]}')


class Workers(unittest.TestCase):
    SOURCE = """
    import sys
    def echo(value): return value
    def loaded(): return [name for name in ("orjson", "msgspec") if name in sys.modules]
    def colour():
        import enum
        return [enum.Enum("Colour", "RED").RED]
    """

    @needs_codecs
    def test_a_worker_uses_what_is_asked_for(self) -> None:
        large = {"rows": [{"n": n, "text": "x" * 50} for n in range(500)]}
        for codec, before, after in [
            ("json", [], []),
            ("auto", [], ["orjson"]),
            ("orjson", ["orjson"], ["orjson"]),
            ("msgspec", ["msgspec"], ["msgspec"]),
        ]:
            with self.subTest(codec), Worker(self.SOURCE, codec=codec) as worker:
                worker.ready()
                self.assertEqual(worker.call("loaded"), before)
                for value in (large, [1], large, {"a": None}):
                    self.assertEqual(worker.call("echo", value), value)
                self.assertEqual(worker.call("loaded"), after)
                self.assertEqual(worker.call("colour")["kind"], "encode")

    def test_a_codec_that_is_not_there_fails_the_start(self) -> None:
        for codec in CODECS:
            source = f"import sys\nsys.modules[{codec!r}] = None"
            with self.subTest(codec), Worker(source, codec=codec) as worker:
                error = worker.refused()
                self.assertEqual((error["phase"], error["type"]), ("setup", "ImportError"))
                self.assertIn(f"pip install {codec}", error["message"])
                self.assertEqual(worker.end(), _wire.EXIT_START_FAILED)

    def test_auto_needs_none(self) -> None:
        with Worker(self.SOURCE + "\n    sys.modules.update(orjson=None, msgspec=None)", codec="auto") as worker:
            worker.ready()
            large = ["x" * 100_000]
            for _ in range(3):
                self.assertEqual(worker.call("echo", large), large)


if __name__ == "__main__":
    unittest.main()
