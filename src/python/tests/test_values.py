"""The rules of values, against the exact walk and against `json`."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import importlib.util
import json
import pathlib
import random
import sys
import threading
import unittest
from unittest import mock

from hatchery import _attachments, _values

NAN, INF = float("nan"), float("inf")


def through(value):
    return json.loads(_values.encode(value))


def nested(depth: int):
    value: list = []
    for _ in range(depth - 1):
        value = [value]
    return value


class Encoding(unittest.TestCase):
    def test_json_types(self) -> None:
        for value in (
            None,
            True,
            False,
            0,
            -1,
            1.5,
            1e300,
            "",
            'Grüße 👋\n"\\\x00',
            [],
            {},
            [[], {}],
            {"a": [1, {"b": None}]},
        ):
            with self.subTest(value=value):
                encoded = _values.encode(value)
                self.assertEqual(encoded.decode(), json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    def test_what_is_no_number_becomes_null(self) -> None:
        self.assertIsNone(through(NAN))
        self.assertIsNone(through(-INF))
        self.assertEqual(through([1.5, {"a": INF, "b": (NAN,)}]), [1.5, {"a": None, "b": [None]}])

    def test_tuples_and_their_like(self) -> None:
        point = collections.namedtuple("point", "x y")  # noqa: PYI024
        self.assertEqual(through((1, point(2, 3), collections.OrderedDict(a=1))), [1, [2, 3], {"a": 1}])
        self.assertEqual(through(enum.IntEnum("Colour", "RED").RED), 1)

    def test_keys(self) -> None:
        keys = {7: 1, True: 2, None: 3, 1.5: 4, "a": 5, 10**30: 6}
        self.assertEqual(through(keys), json.loads(json.dumps(keys)))
        self.assertEqual(through({NAN: 1, INF: NAN, -INF: 3}), {"NaN": 1, "Infinity": None, "-Infinity": 3})

    def test_two_keys_that_become_one_are_an_error(self) -> None:
        other = [{"x" * 9: number} for number in range(3)]
        for keys, both in (
            ((1, "1"), "'1' in JSON (1 and '1')"),
            (("1", 1), "'1' in JSON ('1' and 1)"),
            ((-7, "-7"), "'-7' in JSON (-7 and '-7')"),
            ((2.5, "2.5"), "'2.5' in JSON (2.5 and '2.5')"),
            ((1e22, "1e+22"), "'1e+22' in JSON (1e+22 and '1e+22')"),
            ((True, "true"), "'true' in JSON (True and 'true')"),
            ((False, "false"), "'false' in JSON (False and 'false')"),
            ((None, "null"), "'null' in JSON (None and 'null')"),
            ((float("nan"), float("nan")), "'NaN' in JSON (nan and nan)"),
            ((-INF, "-Infinity"), "'-Infinity' in JSON (-inf and '-Infinity')"),
        ):
            lossy = dict.fromkeys(keys, 0)
            bare, nested, with_bytes = lossy, [other, {"rows": (lossy,)}], [b"data", lossy]
            for value, place in ((bare, ""), (nested, "[1]['rows'][0]"), (with_bytes, "[1]")):
                with self.subTest(keys=keys, place=place), self.assertRaises(_values.EncodeError) as caught:
                    _values.encode(value)
                self.assertIn(f"result{place} has two keys that become {both}", str(caught.exception))

    def test_keys_that_stay_apart_are_kept(self) -> None:
        for value in (
            {1: "a", "01": "b", 1.5: "c", "true ": "d", False: "e"},
            {"1": 1, "2": 2, "true": 3, "null": 4},
            [{1: 1}, {"1": 2}],
            {"1": {1: {"1": 1}}},
            {"text": '{"1":0,"1":0}'},
        ):
            with self.subTest(value=value):
                self.assertEqual(through(value), json.loads(json.dumps(value)))

    def test_integers(self) -> None:
        for value in (2**64 - 1, -(2**63), 10**19, 10**19 - 1, 10**18, -(10**18)):
            for shape in (value, [value], {"a": [0.25, value, "x"]}):
                with self.subTest(shape=shape):
                    self.assertEqual(through(shape), shape)
        for value in (2**64, -(2**63) - 1, 10**19 * 2, 10**400, -(10**30), 10**5000):
            for shape, place in (
                (value, "result"),
                ([1, value], "result[1]"),
                ({"a": {"b": value}}, "result['a']['b']"),
            ):
                with (
                    self.subTest(bits=value.bit_length(), place=place),
                    self.assertRaises(_values.EncodeError) as caught,
                ):
                    _values.encode(shape)
                self.assertTrue(str(caught.exception).startswith(f"{place} is an integer of"), caught.exception)

    def test_long_digits_elsewhere_are_fine(self) -> None:
        for value in (
            ["9" * 40],
            {"9" * 40: 1},
            [0.00012345678901234567, 1e-7, 1.7976931348623157e308, 123456789012345680.0],
        ):
            self.assertEqual(through(value), value)

    def test_depth(self) -> None:
        self.assertEqual(through(nested(120)), nested(120))
        self.assertEqual(through(["[" * 300 + "{" * 300]), ["[" * 300 + "{" * 300])
        rows = [{"a": [1, {"b": []}]} for _ in range(500)]
        self.assertEqual(through(rows), rows)
        itself: list = []
        itself.append(itself)
        limit = sys.getrecursionlimit()
        for value in (nested(121), nested(10_000), itself, {"a": nested(500)}, [{"a": nested(119)}]):
            for recursion_limit in (limit, 1_000_000):
                sys.setrecursionlimit(recursion_limit)
                try:
                    with self.assertRaises(_values.EncodeError) as caught:
                        _values.encode(value)
                    self.assertEqual(sys.getrecursionlimit(), recursion_limit)
                finally:
                    sys.setrecursionlimit(limit)
                self.assertIn("deeper than 120 levels", str(caught.exception))

    def test_no_other_thread_sees_a_lower_recursion_limit(self) -> None:
        limit = sys.getrecursionlimit()
        seen = set()
        done = threading.Event()
        other = threading.Thread(target=done.wait)
        other.start()

        def trace(frame, *_):
            frame.f_trace_opcodes = True  # between two of which another thread may run
            seen.add(sys.getrecursionlimit())
            return trace

        before = sys.gettrace()
        sys.setrecursionlimit(5000)
        try:
            sys.settrace(trace)
            self.assertEqual(_values.encode([1, {"a": None}]), b'[1,{"a":null}]')
            sys.settrace(before)
            self.assertEqual(seen, {5000})
        finally:
            sys.settrace(before)
            sys.setrecursionlimit(limit)
            done.set()
            other.join()

    def test_another_thread_finds_a_codec_meanwhile(self) -> None:
        texts = {_values.read: b'["long enough"]', _values.encode: ["long enough"]}
        found = mock.Mock()
        before = sys.gettrace()
        for function, value in texts.items():
            expected = function(value)
            for at in range(200):  # between any two opcodes
                steps = iter(range(at))

                def trace(frame, *_, steps=steps, code=function.__code__):
                    if frame.f_code is code:
                        frame.f_trace_opcodes = True
                        if next(steps, None) is None:
                            _values.consider = None
                    return trace

                with mock.patch.multiple(_values, consider=found, large_bytes=10):
                    sys.settrace(trace)
                    try:
                        self.assertEqual(function(value), expected)
                    finally:
                        sys.settrace(before)
        self.assertGreater(found.call_count, 100)

    def test_types_that_json_does_not_have(self) -> None:
        for value, says in (
            ({1}, "result is a set; JSON has no such type: convert it (for example to a list)"),
            ({"rows": [1, 2, 3, {4}]}, "result['rows'][3] is a set;"),
            ([1j], "result[0] is a complex; JSON has no such type: convert it (for example to a list of two"),
            ({"at": dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)}, "result['at'] is a datetime.datetime;"),
            ({"at": [object()]}, "result['at'][0] is an object; JSON has no such type: convert it"),
            ((i for i in "ab"), "result is a generator;"),
            ({(1, 2): 3}, "result has a key of type tuple; keys must be str"),
            ({"a": {b"k": 3}}, "result['a'] has a key of type bytes;"),
            (["ok", "a\ud800"], "result[1] has a lone surrogate (U+D800) at character 1;"),
            ("\udcff", "result has a lone surrogate (U+DCFF) at character 0;"),
            ({"k": {"\udcff": 1}}, "result['k'] has a key with a lone surrogate"),
        ):
            with self.subTest(says), self.assertRaises(_values.EncodeError) as caught:
                _values.encode(value)
            self.assertTrue(str(caught.exception).startswith(says), caught.exception)
            str(caught.exception).encode()

    def test_errors_hint_at_the_conversion(self) -> None:
        colour = enum.Enum("Colour", "RED").RED
        point = dataclasses.make_dataclass("Point", ["x"])(1)
        kinds = {
            "model_dump": 'for example with .model_dump(mode="json")',
            "__attrs_attrs__": "for example with attrs.asdict()",
            "to_dicts": "for example with .to_dicts()",
            "iterrows": 'for example with .to_dict("records")',
        }
        values = [(type(name, (), {name: None})(), hint) for name, hint in kinds.items()]
        values += [
            (colour, "for example with .value"),
            (point, "for example with dataclasses.asdict()"),
            (pathlib.PurePath("a"), "for example with str()"),
            ({}.keys(), "for example to a list"),
            (collections.deque(), "for example to a list"),
        ]
        for value, hint in values:
            with self.subTest(hint), self.assertRaises(_values.EncodeError) as caught:
                _values.encode([value])
            self.assertIn(f"convert it ({hint})", str(caught.exception))

    def test_errors_hint_at_the_conversion_of_real_libraries(self) -> None:
        missing = [name for name in ("numpy",) if importlib.util.find_spec(name) is None]
        if missing:
            self.skipTest(f"{missing[0]} cannot be imported by this Python: pip install {missing[0]}")
        import numpy as np

        for scalar in (np.float32(1), np.int8(1), np.uint64(1), np.bool_(1), np.complex64(1), np.datetime64(1, "s")):
            with self.subTest(type(scalar)), self.assertRaises(_values.EncodeError) as caught:
                _values.encode({"x": scalar})
            self.assertIn("convert it (for example with .item())", str(caught.exception))

    def test_containers_that_misbehave(self) -> None:
        class Odd(dict):
            def items(self):
                raise LookupError("not today")

        with self.assertRaises(_values.EncodeError) as caught:
            _values.encode(Odd(a=1))
        self.assertIn("LookupError: not today", str(caught.exception))

    def test_quick_looks_agree_with_the_exact_walk(self) -> None:
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        leaves = (0, -1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**25, 0.0001234567890123456789, 1e-5, 1e22)
        leaves += ("12345678901234567890123", "[[[[", '"}{', "\\", None, True, NAN)

        def any_value(depth: int):
            kind = chance.randrange(4)
            if depth == 0 or kind == 0:
                return chance.choice(leaves)
            if kind == 1:
                return {str(chance.randrange(9)): any_value(depth - 1) for _ in range(chance.randrange(4))}
            value = any_value(depth - 1)
            for _ in range(chance.choice([0, 0, 0, 110, 125])):
                value = [value, 1] if chance.random() < 0.5 else {"k": value}
            return [value, any_value(depth - 1)]

        for _ in range(400):
            value = any_value(4)
            with self.subTest(seed=seed):
                try:
                    exact = _values._checked(value, [], _attachments.Collector())
                except _values.EncodeError:
                    self.assertRaises(_values.EncodeError, _values.encode, value)
                else:
                    self.assertEqual(through(value), exact)


if __name__ == "__main__":
    unittest.main()
