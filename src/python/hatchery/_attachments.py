r"""Attachments: bytes and arrays that a frame carries beside its JSON. `_values` imports this with the first of them.

In the JSON a placeholder, an object whose only member is `"\\0"`, stands for an attachment, see docs/wire-protocol.md.
"""

from __future__ import annotations

import sys

from hatchery import _values, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_ATTACHMENTS = 0xFFFF
NAME = "\0"

# Format codes of `struct`, and numpy's letters for the kinds of numbers.
_KINDS = {**dict.fromkeys("bhilqn", "i"), **dict.fromkeys("BHILQN", "u"), **dict.fromkeys("efd", "f"), "?": "b"}
_FORMATS = {"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
_FORMATS.update({"f4": "f", "f8": "d", "b1": "?"})
_ARRAY_KINDS = "biufc"  # numpy's letters for the kinds that can be sent
_NATIVE = "<" if sys.byteorder == "little" else ">"


class RefusedError(Exception):
    """A value has bytes that cannot be sent. The message continues after the value's place."""


class Collector:
    """Collects attachments while a value is encoded, and returns their placeholders."""

    def __init__(self, *, escapes: bool = False) -> None:
        """Start empty. With `escapes`, names that look like placeholders are escaped."""
        self.attachments: list[Any] = []
        self.escapes = escapes
        self.reserved = False  # some name looks like a placeholder

    def add(self, value: Any) -> dict[str, Any] | None:
        """Add a value that has bytes, and return its placeholder; None when the value has no bytes."""
        data = _bytes_of(value)
        if data is None:
            return None
        if len(self.attachments) == MAX_ATTACHMENTS:
            raise RefusedError(f"is more than the {MAX_ATTACHMENTS} bytes values that a result can have: join them")
        self.attachments.append(data[0])
        return {NAME: [len(self.attachments) - 1, *data[1:]]}

    def add_or_raise(self, value: Any) -> dict[str, Any]:
        """Add a value, or raise `TypeError`, as the C encoder wants it."""
        collector = self.add(value)
        if collector is None:
            raise TypeError(type(value))
        return collector

    def name(self, name: str) -> str:
        """Return a member's name, escaped if necessary."""
        if name[:1] != NAME:
            return name
        self.reserved = True
        return NAME + name if self.escapes else name


def _bytes_of(value: Any) -> tuple[Any, ...] | None:
    """Return a value's bytes, and the dtype and shape of an array; None when the value has no bytes."""
    kind = type(value)
    if kind is bytes:
        return (value,)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, getattr(numpy, "ndarray", ())):
            return _bytes_of_array(value)
        if isinstance(value, getattr(numpy, "generic", ())):
            return None  # a single number is not sent as bytes
    try:
        view = memoryview(value)
    except TypeError:
        return None
    shape = view.shape or ()
    code = (view.format or "B").lstrip("@=<")
    swapped = code[:1] in (">", "!") or (_NATIVE == ">" and (view.format or "")[:1] == "<")
    code = code.lstrip(">!")
    if code == "c":
        code = "B"
    if code not in _KINDS:
        raise RefusedError(
            f"is a {_values.type_name(kind)} with elements of format {view.format!r}: "
            "convert it (for example with bytes(), or to a list)"
        )
    if view.c_contiguous and not swapped and view.nbytes:
        try:
            data: Any = view.cast("B")
        except (TypeError, ValueError):  # `cast` rejects an explicit "<", even where it is the native order
            data = view.tobytes()
    else:
        data = view.tobytes()
    if code == "B" and len(shape) == 1:
        return (data,)
    order = "|" if view.itemsize == 1 else {"<": ">", ">": "<"}[_NATIVE] if swapped else _NATIVE
    return data, f"{order}{_KINDS[code]}{view.itemsize}", list(shape)


def _bytes_of_array(value: Any) -> tuple[Any, ...]:
    import numpy as np

    dtype = value.dtype
    if dtype.kind not in _ARRAY_KINDS or dtype.str[:1] not in "<>|":
        raise RefusedError(f"is a numpy.ndarray of dtype {dtype}: {_hint(dtype)}")
    if hasattr(value, "mask"):
        raise RefusedError("is a masked numpy array: send .filled() and .mask")
    plain = np.asarray(value)
    if not plain.flags.c_contiguous:
        plain = plain.copy(order="C")
    data = plain.reshape(-1).view(np.uint8).data if plain.size else b""
    return data, dtype.str, list(plain.shape)


def _hint(dtype: Any) -> str:
    if dtype.hasobject:
        return "convert it (for example with .tolist(), or .astype(float))"
    if dtype.names:
        return "send its fields one by one (for example {name: a[name] for name in a.dtype.names})"
    if dtype.kind in "mM":
        return 'send .view("i8") and the unit'
    return "convert it (for example with .tolist())"


def encode(value: Any) -> _wire.Encoded | None:
    """Encode a value with attachments by the C encoder; None when the exact walk must decide."""
    collector = Collector()
    try:
        data = _values.guarded(_values.encoder(collector.add_or_raise), value).encode()
    except Exception:
        return None
    attachments = collector.attachments
    # A text that starts with U+0000 may be a name; placeholders add a level of nesting.
    if data.count(b'"\\u0000') != len(attachments) or not _values.is_surely_fine(data, value):
        return None
    return _wire.Encoded(data, attachments)


class _Placeholders:
    """Replaces placeholders by their attachments while a body is decoded."""

    def __init__(self, attachments: tuple[Any, ...], *, escaped: bool) -> None:
        self._attachments = attachments
        self._used = [False] * len(attachments)
        self._escaped = escaped  # some names may be escaped

    def members(self, members: dict[str, Any]) -> Any:
        """Return an object, or the attachment if the object is a placeholder."""
        if NAME in members:
            if len(members) != 1:
                raise _wire.ProtocolError("a placeholder has another member")
            return self._value(members[NAME])
        if self._escaped:
            for name in members:
                if name[:1] == NAME:
                    return {name[1:] if name[:1] == NAME else name: value for name, value in members.items()}
        return members

    def _value(self, placeholder: Any) -> Any:
        try:
            index, *array_type = placeholder
            named, data = self._used[index], self._attachments[index]
            if named or index < 0:
                raise ValueError(f"attachment {index} is named twice")  # noqa: TRY301
            self._used[index] = True
            if type(data.obj) in (bytes, bytearray):  # from the frame, not from a memfd
                data = bytes(data) if len(data) < _wire.MIN_VIEW_BYTES else data.toreadonly()
            return _array(data, *array_type) if array_type else data
        except Exception as error:
            raise _wire.ProtocolError(f"a placeholder cannot be read: {type(error).__name__}: {error}") from error

    def check(self) -> None:
        """Raise `ProtocolError` unless each attachment has a placeholder."""
        if not all(self._used):
            raise _wire.ProtocolError(f"no placeholder names attachment {self._used.index(False)}")


def scan(body: Any, attachments: tuple[Any, ...]) -> Any:
    """Decode a body with attachments.

    Raises `ProtocolError` for a wrong placeholder, `UnmappedError` for an attachment that this process could not map,
    and `ValueError` for other wrong bodies.
    """
    for data in attachments:
        if isinstance(data, _wire.UnmappedError):
            raise data
    text = str(body, "utf-8")
    placeholders = _Placeholders(attachments, escaped=text.count("\\u0000") != len(attachments))
    value, end = _values.scanner(placeholders.members)(text, 0)
    if end != len(text):
        raise ValueError("the body has data after the value")
    placeholders.check()
    return value


def _array(data: Any, dtype: str, shape: list[int]) -> Any:
    size = int(dtype[2:])
    for length in shape:
        size *= length
    if size != len(data) or min(shape, default=0) < 0 or dtype[0] not in "<>|" or dtype[1] not in _ARRAY_KINDS:
        raise ValueError(f"{len(data)} bytes are not an array of {dtype} and shape {shape}")
    try:
        import numpy as np
    except Exception:  # numpy is missing, or broken
        return _view(data, dtype, shape)
    return np.ndarray(shape, dtype, data)


def _view(data: Any, dtype: str, shape: list[int]) -> memoryview:
    view = memoryview(data)
    code = _FORMATS.get(dtype[1:])
    if code is None or dtype[0] not in (_NATIVE, "|") or not all(shape):
        return view
    cast: Any = view.cast("B").cast  # typeshed accepts only literal formats
    shaped: memoryview = cast(code, shape)
    return shaped
