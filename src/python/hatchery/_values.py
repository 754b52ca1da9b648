"""Encodes Python values as JSON and decodes JSON, under the rules of the wire. All that is sent passes through here.

| value | on the wire |
|---|---|
| NaN, infinities | null |
| tuple | array |
| int, bool, None and float keys | strings, as the `json` module writes them |
| integer outside i64 and u64, lone surrogate, nesting over 120, any other type | an error that names the place |
| two keys of a dict that become the same string | an error |

The C encoder does the work, but accepts more than the rules allow. Cheap checks on the encoded bytes find values that
may break a rule. Only for those, and when the C encoder fails, an exact but slow walk over the value decides.
"""

from __future__ import annotations

import sys
from _functools import partial  # type: ignore[import-not-found]  # typeshed does not know it
from _thread import _count as _count_threads

try:
    from _json import encode_basestring, make_encoder, make_scanner
except ImportError:  # not CPython
    from json import JSONDecoder, JSONEncoder

    _encode_whole = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

    def _in_parts(obj: object, _current_indent_level: int) -> Any:
        return (_encode_whole(obj),)

    scan = JSONDecoder(parse_constant=lambda _name: None).scan_once  # type: ignore[attr-defined]  # typeshed does not know it

    def encoder(default: Callable[[Any], Any]) -> Callable[[Any], str]:
        """Return an encoder that asks `default` what to encode for what it does not know."""
        return JSONEncoder(default=default, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

    def scanner(object_hook: Callable[[dict[str, Any]], Any]) -> Callable[[str, int], tuple[Any, int]]:
        """Return a scanner that asks `object_hook` what each object means."""
        decoder = JSONDecoder(parse_constant=lambda _name: None, object_hook=object_hook)
        return decoder.scan_once  # type: ignore[attr-defined,no-any-return]  # typeshed does not know it
else:

    class _Plain:
        """The attributes that the C scanner reads: defaults of `json.JSONDecoder`, without the import of `json`."""

        strict = True
        object_hook: Any = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int

        @staticmethod
        def parse_constant(_name: str) -> None:  # NaN and infinities become null in this direction too
            return None

    def _no_such_type(value: object) -> None:
        raise TypeError(type(value))

    # (markers, default, encoder, indent, key separator, item separator, sort_keys, skipkeys, allow_nan). Without
    # markers a value that contains itself ends as a RecursionError, and nothing needs clearing after a failure.
    _in_parts = make_encoder(None, _no_such_type, encode_basestring, None, ":", ",", False, False, False)  # noqa: FBT003
    scan = make_scanner(_Plain)  # type: ignore[arg-type]  # it only reads these names

    def encoder(default: Callable[[Any], Any]) -> Callable[[Any], str]:
        """Return an encoder that asks `default` what to encode for what it does not know."""
        encode = make_encoder(None, default, encode_basestring, None, ":", ",", False, False, False)  # noqa: FBT003
        return lambda value: "".join(encode(value, 0))

    def scanner(object_hook: Callable[[dict[str, Any]], Any]) -> Callable[[str, int], tuple[Any, int]]:
        """Return a scanner that asks `object_hook` what each object means."""
        plain = _Plain()
        plain.object_hook = object_hook
        return make_scanner(plain)  # type: ignore[arg-type]  # it only reads these names


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from hatchery._attachments import Collector
    from hatchery._wire import Encoded

MAX_DEPTH = 120
MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**64 - 1
# The C encoder recurses on the C stack. Up to Python 3.11 only the recursion limit bounds it, and only its default is
# safe. Later versions bound the C stack separately.
_SAFE_RECURSION_LIMIT = 1000 if sys.version_info < (3, 12) else sys.maxsize
_join = "".join
_recursion_limit = sys.getrecursionlimit
_limit_recursion = sys.setrecursionlimit
_call = partial.__call__
_lower = partial(_limit_recursion, _SAFE_RECURSION_LIMIT)

_NO_MARKS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_ALL_SQUARE = bytes.maketrans(b"{}", b"[]")
_DIGITS = bytes(0x30 if byte in b"0123456789" else byte if byte in b".-" else 0x20 for byte in range(256))
_LONG_NATURAL = b"0" * 20  # 2^64 has 20 digits
_LONG_NEGATIVE = b"-" + b"0" * 19  # and 2^63 has 19
# A shorter text breaks no rule: the shortest that does is `{"1":0,"1":0}`.
_MIN_SUSPICIOUS = 13
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_KEPT_APART = ({str}, {int})  # if all keys are of one of these types, they stay distinct
_KEY_ENDS = (
    b'true":',
    b'false":',
    b'null":',
    b'NaN":',
    b'Infinity":',
)  # how keys end that are neither strings nor numbers

NEVER = sys.maxsize
# The first body of this size imports a faster codec; that takes 10 ms and more.
LARGE_BYTES = 16 * 1024
# `_codecs` sets these. A body of `large_bytes` or more is read by `fast_decode`. `consider`, if set, is called before
# the first such body, and chooses the codec.
large_bytes = NEVER
consider: Callable[[], None] | None = None
fast_decode: Callable[[Any], Any] | None = None
fast_encode: Callable[[Any], bytes | None] | None = None  # returns None for a value that it must not encode

_HINTS = {
    "set": "for example to a list",
    "frozenset": "for example to a list",
    "dict_keys": "for example to a list",
    "dict_values": "for example to a list",
    "dict_items": "for example with dict()",
    "range": "for example to a list",
    "collections.deque": "for example to a list",
    "generator": "for example with list(); or let the caller read it as a stream",
    "async_generator": "for example by collecting its items in a list; or let the caller read it as a stream",
    "datetime.datetime": "for example with .isoformat()",
    "datetime.date": "for example with .isoformat()",
    "datetime.time": "for example with .isoformat()",
    "datetime.timedelta": "for example with .total_seconds()",
    "decimal.Decimal": "for example with str() or float()",
    "fractions.Fraction": "for example with str() or float()",
    "uuid.UUID": "for example with str()",
    "complex": "for example to a list of two numbers",
    "torch.Tensor": "for example with .numpy()",
    "coroutine": "for example by awaiting it",
}
# An attribute that identifies a kind of class, and how to convert its values.
_HINTS_BY_ATTRIBUTE = (
    ("model_dump", 'for example with .model_dump(mode="json")'),  # pydantic
    ("__pydantic_fields__", "for example with dataclasses.asdict()"),  # its dataclasses
    ("__fields_set__", "for example with .dict()"),  # pydantic 1
    ("__dataclass_fields__", "for example with dataclasses.asdict()"),
    ("__attrs_attrs__", "for example with attrs.asdict()"),
    ("__struct_fields__", "for example with msgspec.to_builtins()"),
    ("to_dicts", "for example with .to_dicts()"),  # a frame of polars
    ("to_pylist", "for example with .to_pylist()"),  # a table of pyarrow
    ("iterrows", 'for example with .to_dict("records")'),  # a frame of pandas
    ("to_list", "for example with .to_list()"),  # a column of either
    ("__fspath__", "for example with str()"),
)


def _encode_text(value: Any) -> str:
    return "".join(_in_parts(value, 0))


class EncodeError(Exception):
    """A value cannot be sent. The message names its place and says what to do."""

    def about(self, what: str) -> str:
        """Return the message with `what`, for example "item", in place of "result"."""
        message = str(self)
        return what + message[len("result") :] if message.startswith("result") else message


def encode(value: Any) -> bytes | Encoded:
    """Encode a result. Raises `EncodeError`."""
    kind = type(value)
    try:
        if kind is str:
            fast = fast_encode(value) if fast_encode is not None and len(value) > 1000 else None
            return _encode_text(value).encode() if fast is None else fast
        if kind is int:
            if MIN_INTEGER <= value <= MAX_INTEGER:
                return b"%d" % value
        elif kind is float or kind is bool or value is None:
            return _encode_text(value).encode()
        else:
            if fast_encode is not None:
                fast = fast_encode(value)
                if fast is not None:
                    return fast
            if _recursion_limit() > _SAFE_RECURSION_LIMIT:
                data = _join(guarded(_in_parts, value, 0)).encode()
            else:
                data = _join(_in_parts(value, 0)).encode()  # the same without the calls
            if len(data) < _MIN_SUSPICIOUS or is_surely_fine(data, value):
                if len(data) >= large_bytes and (find := consider) is not None:
                    find()
                return data
    except TypeError:  # it may contain bytes
        from hatchery import _attachments

        encoded = _attachments.encode(value)
        if encoded is not None:
            return encoded
    except Exception:  # noqa: S110
        pass  # a NaN, or an error that the exact walk reports
    return _encode_exactly(value)


def guarded(encode: Callable[..., Any], *args: Any) -> Any:
    """Run the C encoder with a recursion limit that is safe for the C stack.

    All threads share the limit, and another thread may be deeper. So when there are threads, the limit is lowered and
    restored within one call of C code. No other thread runs meanwhile, unless `encode` runs Python code or raises.
    """
    limit = sys.getrecursionlimit()
    if limit <= _SAFE_RECURSION_LIMIT:
        return encode(*args)
    try:
        if _count_threads():
            return tuple(map(_call, (_lower, partial(encode, *args), partial(_limit_recursion, limit))))[1]
        _lower()
        return encode(*args)
    finally:
        _limit_recursion(limit)


def is_surely_fine(data: bytes, value: Any) -> bool:
    """Tell whether a value that the C encoder accepted surely breaks no rule of the wire."""
    if is_too_deep(data) or _may_hold_a_long_integer(data):
        return False
    return not _may_have_a_key_twice(data) or not _has_a_key_twice(value)


def _may_have_a_key_twice(data: bytes) -> bool:
    """Tell whether a key that is not a string may equal another key. May be True for no reason: strings mislead it."""
    if b'":' not in data:
        return False
    if b'0":' in data.translate(_DIGITS_AS_ZERO):
        return True
    for end in _KEY_ENDS:  # noqa: SIM110 - twice as fast as any()
        if end in data:
            return True
    return False


def _has_a_key_twice(value: Any) -> bool:
    """Tell whether two keys of any dict in a value become the same text. The C encoder has accepted the value."""
    containers = (list, dict, tuple)
    waits: list[Any] = [value] if isinstance(value, containers) else []
    while waits:
        items = waits.pop()
        if isinstance(items, dict):
            kinds = set(map(type, items))
            if kinds not in _KEPT_APART and len({_key(key, []) for key in items}) < len(items):
                return True
            items = items.values()
        if any(issubclass(kind, containers) for kind in set(map(type, items))):
            waits += [item for item in items if isinstance(item, containers)]
    return False


def look_for_codecs() -> None:
    """Have the first large body import a faster codec, if one is installed."""
    global consider, large_bytes
    consider, large_bytes = _find_codec, LARGE_BYTES


def _find_codec() -> None:
    from hatchery import _codecs

    _codecs.find()


def read(body: Any) -> Any:
    """Decode a body. Raises `ValueError`, or another exception of a decoder, when it is not valid."""
    if len(body) >= large_bytes:
        if (find := consider) is not None:  # read once: another thread may clear it
            find()
        if fast_decode is not None:
            try:
                return fast_decode(body)
            except Exception:  # noqa: S110
                pass  # `scan` decides, so that its messages do not depend on the codec
    text = str(body, "utf-8")
    value, end = scan(text, 0)
    if end != len(text):
        raise ValueError("the body has data after the value")
    return value


def encode_leniently(value: Any) -> bytes:
    """Encode a body that this package makes. Lone surrogates become question marks."""
    return _encode_text(value).encode("utf-8", "replace")


def _encode_exactly(value: Any) -> bytes | Encoded:
    from hatchery import _attachments, _wire

    try:
        collector = _attachments.Collector()
        data = _encode_text(_checked(value, [], collector)).encode()
        if collector.attachments and collector.reserved:  # a name looks like a placeholder: encode again with escapes
            collector = _attachments.Collector(escapes=True)
            data = _encode_text(_checked(value, [], collector)).encode()
        return _wire.Encoded(data, collector.attachments) if collector.attachments else data
    except EncodeError:
        raise
    except MemoryError:
        raise EncodeError("result is too large: out of memory while encoding it") from None
    except Exception as error:  # a subclass of dict or list may run user code
        raise EncodeError(f"result cannot be encoded: {type(error).__name__}: {error}") from error


def is_too_deep(data: bytes) -> bool:
    """Tell whether encoded JSON is nested deeper than `MAX_DEPTH`."""
    if len(data) <= 2 * MAX_DEPTH or data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two adjacent quotes are a string without brackets, or the end of one string and the start of the next.
    brackets = data.translate(_ALL_SQUARE, _NO_MARKS).replace(b'""', b"")
    if b'"' in brackets:
        brackets = b"".join(brackets.split(b'"')[::2])
    # Only brackets outside of strings are left. Each pass removes the innermost level.
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def _may_hold_a_long_integer(data: bytes) -> bool:
    """Tell whether an integer may exceed 64 bits. May be True for no reason: strings and large u64 mislead it."""
    digits = data.translate(_DIGITS)
    at = digits.find(_LONG_NATURAL)
    while at >= 0:
        if digits[at - 1 : at] != b".":  # digits after a point are the fraction of a float
            return True
        at = digits.find(_LONG_NATURAL, at + len(_LONG_NATURAL))
    return _LONG_NEGATIVE in digits


def _checked(value: Any, path: list[str | int], collector: Collector) -> Any:
    """Return the value in the types that the wire carries.

    `path` leads to the value. After an error it leads to the value that cannot be sent.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        _check_text(value, path, "has")
        return value
    if isinstance(value, int):
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise EncodeError(
                f"{_place(path)} is an integer of {value.bit_length()} bits; only those of i64 and u64 travel: "
                "convert it (for example to a string)"
            )
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, (list, tuple)):
        _check_depth(path)
        items = []
        for index, item in enumerate(value):
            path.append(index)
            items.append(_checked(item, path, collector))
            path.pop()
        return items
    if isinstance(value, dict):
        _check_depth(path)
        members = {}
        for key, item in value.items():
            text = _key(key, path)
            name = collector.name(text)
            if name in members:
                raise EncodeError(
                    f"{_place(path)} has two keys that become {text!r} in JSON ({_keys_of(value, text)}): "
                    "rename one of them"
                )
            path.append(text)
            members[name] = _checked(item, path, collector)
            path.pop()
        return members
    placeholder = _placeholder(value, path, collector)
    if placeholder is not None:
        return placeholder
    name = type_name(type(value))
    hint = _hint(value, name)
    article = "an" if name[0] in "aeiou" else "a"
    raise EncodeError(f"{_place(path)} is {article} {name}; JSON has no such type: convert it{hint}")


def _hint(value: Any, name: str) -> str:
    """Return in brackets how to convert a value that JSON has no type for; an empty text if that is not known."""
    hint = _HINTS.get(name)
    if hint is None:
        enum, numpy = sys.modules.get("enum"), sys.modules.get("numpy")
        if enum is not None and isinstance(value, enum.Enum):
            hint = "for example with .value"
        elif numpy is not None and isinstance(value, getattr(numpy, "generic", ())):
            hint = "for example with .item()"
        else:
            kind = type(value)  # not the value: a proxy object may have any attribute
            hint = next((hint for attribute, hint in _HINTS_BY_ATTRIBUTE if hasattr(kind, attribute)), None)
    return "" if hint is None else f" ({hint})"


def _placeholder(value: Any, path: list[str | int], collector: Collector) -> dict[str, Any] | None:
    """Return the placeholder of a value that has bytes; None when the value has no bytes."""
    from hatchery._attachments import RefusedError

    try:
        return collector.add(value)
    except RefusedError as error:
        raise EncodeError(f"{_place(path)} {error}") from None


def _check_text(text: str, path: list[str | int], has: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(
            f"{_place(path)} {has} a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}; UTF-8 "
            "has no form for it: replace it (for example with .encode('utf-8', 'replace').decode())"
        ) from None


def _check_depth(path: list[str | int]) -> None:
    if len(path) >= MAX_DEPTH:
        raise EncodeError(
            f"{_place(path[:3])} goes on nesting deeper than {MAX_DEPTH} levels, or contains itself: flatten it"
        )


def _key(key: Any, path: list[str | int]) -> str:
    if isinstance(key, str):
        _check_text(key, path, "has a key with")
        return key
    if key is None:
        return "null"
    if key is True:
        return "true"
    if key is False:
        return "false"
    if isinstance(key, int):
        return int.__repr__(key)
    if isinstance(key, float):
        if key - key == 0:
            return float.__repr__(key)
        return "NaN" if key != key else "Infinity" if key > 0 else "-Infinity"  # noqa: PLR0124
    raise EncodeError(
        f"{_place(path)} has a key of type {type_name(type(key))}; keys must be str, int, float, bool or None: "
        "convert it (for example with str())"
    )


def _keys_of(value: dict[Any, Any], text: str) -> str:
    """Return the keys of a dict that become this text, in Python's notation."""
    return " and ".join(repr(key) for key in value if _key(key, []) == text)


def _place(path: list[str | int]) -> str:
    """Return the place in Python's notation, for example result['rows'][3]."""
    place = "result"
    for step in path:
        text = repr(step)
        place += f"[{text if len(text) <= 60 else text[:56] + '...' + text[0]}]"
        if len(place) > 400:
            return place + "..."
    return place


def type_name(kind: type) -> str:
    """Return a type's name with its module; without it for builtins."""
    try:
        module, name = kind.__module__, kind.__qualname__
        text = f"{name}" if module in (None, "builtins") else f"{module}.{name}"
    except Exception:  # a metaclass may do anything
        text = type.__dict__["__name__"].__get__(kind)
    return text
