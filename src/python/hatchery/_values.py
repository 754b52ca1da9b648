"""Values to JSON and back, under the rules of the wire.

NaN and infinities become null; integers outside i64/u64, lone surrogates, nesting over 120 and types that JSON does
not have are errors that name the place; tuples become lists; int, bool, None and float keys become strings as the
`json` module does, and two keys of a dict that become the same string are an error.

The C encoder does the work. What it lets pass is looked for in the encoded bytes, where it is cheap; only when they
look suspicious, or when it fails, the exact but slow walk over the value decides.
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
        """What the C scanner asks for: the defaults of `json.JSONDecoder`, without importing `json` and `re`."""

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

    from hatchery._attachments import Encoded, Taken

MAX_DEPTH = 120
MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**64 - 1
# The C encoder recurses on the C stack. Until Python 3.11 it asks the recursion limit only, whose default fits any
# stack; later ones have a limit of their own for that.
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
# A shorter text holds no such number, is not nested too deep, and has no key twice: `{"1":0,"1":0}` is the shortest.
_LEAST_SUSPICIOUS = 13
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_KEPT_APART = ({str}, {int})  # keys of one of these types alone become as many texts
_KEY_ENDS = (b'true":', b'false":', b'null":', b'NaN":', b'Infinity":')  # of keys that are no strings and no numbers

NEVER = sys.maxsize
# To import orjson takes 10 ms and more: it is worth that for the first body of this size.
LARGE_BYTES = 16 * 1024
# Set by `_codecs`. From `large_bytes` on a body is read by `fast_decode`, or the first one asks `consider` for one.
large_bytes = NEVER
consider: Callable[[], None] | None = None
fast_decode: Callable[[Any], Any] | None = None
fast_encode: Callable[[Any], bytes | None] | None = None  # returns None for what it cannot, or may not, encode

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
# The attribute that tells a kind of class, and how a value of it becomes JSON's types.
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
    """A value that the wire does not carry; the message says where it is and what to do."""

    def about(self, what: str) -> str:
        """Return the message for a value that is no result, but for example an item."""
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
            if len(data) < _LEAST_SUSPICIOUS or is_surely_fine(data, value):
                if len(data) >= large_bytes and (find := consider) is not None:
                    find()
                return data
    except TypeError:  # perhaps there are bytes in it
        from hatchery import _attachments

        encoded = _attachments.encode(value)
        if encoded is not None:
            return encoded
    except Exception:  # noqa: S110
        pass  # the walk finds out why, or it was a NaN
    return _encode_exactly(value)


def guarded(encode: Callable[..., Any], *args: Any) -> Any:
    """Encode with the C encoder, where it may not recurse as deep as Python code may.

    The limit is that of all threads, and another one may be deeper. Where there are others, it is lowered and raised
    again within one call of C code: none of them runs meanwhile, unless `encode` itself runs Python code, or raises.
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
    """Tell whether what the C encoder lets pass, but the rules do not, is surely not in the text of this value."""
    if is_too_deep(data) or _may_hold_a_long_integer(data):
        return False
    return not _may_have_a_key_twice(data) or not _has_a_key_twice(value)


def _may_have_a_key_twice(data: bytes) -> bool:
    """Tell whether a key may be no string, and so become the same text as another; strings may mislead it."""
    if b'":' not in data:
        return False
    if b'0":' in data.translate(_DIGITS_AS_ZERO):
        return True
    for end in _KEY_ENDS:  # noqa: SIM110 - twice as fast as any()
        if end in data:
            return True
    return False


def _has_a_key_twice(value: Any) -> bool:
    """Tell whether two keys of a dict in a value, which the C encoder has taken, become the same text."""
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
    """Have the first large body look for a faster codec."""
    global consider, large_bytes
    consider, large_bytes = _find_codec, LARGE_BYTES


def _find_codec() -> None:
    from hatchery import _codecs

    _codecs.find()


def read(body: Any) -> Any:
    """Read the one value of a body. Raises whatever is wrong with it."""
    if len(body) >= large_bytes:
        if (find := consider) is not None:  # looked up once: another thread may find meanwhile
            find()
        if fast_decode is not None:
            try:
                return fast_decode(body)
            except Exception:  # noqa: S110
                pass  # what is wrong is told by the one whose words are known, if it is wrong
    text = str(body, "utf-8")
    value, end = scan(text, 0)
    if end != len(text):
        raise ValueError("something follows the call")
    return value


def encode_leniently(value: Any) -> bytes:
    """Encode a body of our own making; lone surrogates in it become question marks."""
    return _encode_text(value).encode("utf-8", "replace")


def _encode_exactly(value: Any) -> bytes | Encoded:
    from hatchery import _attachments

    try:
        taken = _attachments.Taken()
        data = _encode_text(_checked(value, [], taken)).encode()
        if taken.attachments and taken.reserved:  # only now it is known that names must be told from placeholders
            taken = _attachments.Taken(escapes=True)
            data = _encode_text(_checked(value, [], taken)).encode()
        return _attachments.Encoded(data, taken.attachments) if taken.attachments else data
    except EncodeError:
        raise
    except MemoryError:
        raise EncodeError("result is too large: out of memory while encoding it") from None
    except Exception as error:  # a subclass of dict or list may run code of its own
        raise EncodeError(f"result cannot be encoded: {type(error).__name__}: {error}") from error


def is_too_deep(data: bytes) -> bool:
    """Tell whether nesting is over the limit."""
    if len(data) <= 2 * MAX_DEPTH or data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes side by side are a string without brackets, or make one of two strings.
    brackets = data.translate(_ALL_SQUARE, _NO_MARKS).replace(b'""', b"")
    if b'"' in brackets:
        brackets = b"".join(brackets.split(b'"')[::2])
    # Brackets outside strings; each pass then takes the innermost level away.
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def _may_hold_a_long_integer(data: bytes) -> bool:
    """Tell whether an integer may leave 64 bits; strings and large u64 may mislead it, towards True only."""
    digits = data.translate(_DIGITS)
    at = digits.find(_LONG_NATURAL)
    while at >= 0:
        if digits[at - 1 : at] != b".":  # what follows a point is the fraction of a float
            return True
        at = digits.find(_LONG_NATURAL, at + len(_LONG_NATURAL))
    return _LONG_NEGATIVE in digits


def _checked(value: Any, path: list[str | int], taken: Taken) -> Any:
    """Return the value as the wire carries it. `path` leads to it and is left at the culprit on an error."""
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
            items.append(_checked(item, path, taken))
            path.pop()
        return items
    if isinstance(value, dict):
        _check_depth(path)
        members = {}
        for key, item in value.items():
            text = _key(key, path)
            name = taken.name(text)
            if name in members:
                raise EncodeError(
                    f"{_place(path)} has two keys that become {text!r} in JSON ({_keys_of(value, text)}): "
                    "one would replace the other; give one another name"
                )
            path.append(text)
            members[name] = _checked(item, path, taken)
            path.pop()
        return members
    placeholder = _placeholder(value, path, taken)
    if placeholder is not None:
        return placeholder
    name = type_name(type(value))
    hint = _hint(value, name)
    article = "an" if name[0] in "aeiou" else "a"
    raise EncodeError(f"{_place(path)} is {article} {name}; JSON has no such type: convert it{hint}")


def _hint(value: Any, name: str) -> str:
    """Return how a value that JSON has no type for can be converted, in brackets; nothing where that is not known."""
    hint = _HINTS.get(name)
    if hint is None:
        enum, numpy = sys.modules.get("enum"), sys.modules.get("numpy")
        if enum is not None and isinstance(value, enum.Enum):
            hint = "for example with .value"
        elif numpy is not None and isinstance(value, getattr(numpy, "generic", ())):
            hint = "for example with .item()"
        else:
            kind = type(value)  # not the value: a proxy has whatever attribute it is asked for
            hint = next((hint for attribute, hint in _HINTS_BY_ATTRIBUTE if hasattr(kind, attribute)), None)
    return "" if hint is None else f" ({hint})"


def _placeholder(value: Any, path: list[str | int], taken: Taken) -> dict[str, Any] | None:
    """Return what stands for a value that has bytes."""
    from hatchery._attachments import RefusedError

    try:
        return taken.take(value)
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
    """Return the keys of a dict that become this text, as Python writes them."""
    return " and ".join(repr(key) for key in value if _key(key, []) == text)


def _place(path: list[str | int]) -> str:
    """Return how Python would write the place, for example result['rows'][3]."""
    place = "result"
    for step in path:
        text = repr(step)
        place += f"[{text if len(text) <= 60 else text[:56] + '...' + text[0]}]"
        if len(place) > 400:
            return place + "..."
    return place


def type_name(kind: type) -> str:
    """Return a type's name as users know it: with its module, unless that is builtins."""
    try:
        module, name = kind.__module__, kind.__qualname__
        text = f"{name}" if module in (None, "builtins") else f"{module}.{name}"
    except Exception:  # a metaclass may do anything
        text = type.__dict__["__name__"].__get__(kind)
    return text
