r"""Bytes beside the JSON of a frame's body: what stands for them in it, and what that means.

An object whose only member is `"\\0"` stands for one, see docs/wire-protocol.md. This module is imported when the first
bytes come or go.
"""

from __future__ import annotations

import sys

from hatchery import _values, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_ATTACHMENTS = 0xFFFF
NAME = "\0"

# What `struct` calls kinds of numbers, and what numpy calls them.
_KINDS = {**dict.fromkeys("bhilqn", "i"), **dict.fromkeys("BHILQN", "u"), **dict.fromkeys("efd", "f"), "?": "b"}
_FORMATS = {"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
_FORMATS.update({"f4": "f", "f8": "d", "b1": "?"})
_ARRAY_KINDS = "biufc"  # what numpy calls kinds of numbers
_NATIVE = "<" if sys.byteorder == "little" else ">"


class Encoded:
    """A body with attachments. Takes the place of the body's bytes wherever a frame is sent."""

    __slots__ = ("attachments", "json")

    def __init__(self, json: bytes, attachments: list[Any]) -> None:
        """`attachments` support the buffer protocol, as bytes."""
        self.json = json
        self.attachments = attachments


class RefusedError(Exception):
    """A value has bytes, but none that travel; the message goes on after the value's place."""


class Taken:
    """Collects attachments while a value is encoded, and returns what stands for them in JSON."""

    def __init__(self, *, escapes: bool = False) -> None:
        """`escapes`: whether names of members are told from placeholders."""
        self.attachments: list[Any] = []
        self.escapes = escapes
        self.reserved = False  # a name was met that must be told from placeholders

    def take(self, value: Any) -> dict[str, Any] | None:
        """Take a value that has bytes; None when it has none."""
        data = _bytes_of(value)
        if data is None:
            return None
        if len(self.attachments) == MOST_ATTACHMENTS:
            raise RefusedError(f"is more than the {MOST_ATTACHMENTS} bytes values that a result carries: join them")
        self.attachments.append(data[0])
        return {NAME: [len(self.attachments) - 1, *data[1:]]}

    def take_or_raise(self, value: Any) -> dict[str, Any]:
        """Do the same for the C encoder."""
        taken = self.take(value)
        if taken is None:
            raise TypeError(type(value))
        return taken

    def name(self, name: str) -> str:
        """Return a member's name as it travels."""
        if name[:1] != NAME:
            return name
        self.reserved = True
        return NAME + name if self.escapes else name


def _bytes_of(value: Any) -> tuple[Any, ...] | None:
    """Return a value's bytes; of an array, its dtype and shape too."""
    kind = type(value)
    if kind is bytes:
        return (value,)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, getattr(numpy, "ndarray", ())):
            return _bytes_of_array(value)
        if isinstance(value, getattr(numpy, "generic", ())):
            return None  # a single number, which has no form of its own
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
        except (TypeError, ValueError):  # its format says "<", though that is native
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


def encode(value: Any) -> Encoded | None:
    """Encode a value that the C encoder alone does not take; None when the exact walk must decide."""
    taken = Taken()
    try:
        data = _values.guarded(_values.encoder(taken.take_or_raise), value).encode()
    except Exception:
        return None
    attachments = taken.attachments
    # Texts that begin with U+0000 may be names, and what may be too deep may be the placeholders.
    if data.count(b'"\\u0000') != len(attachments) or not _values.is_surely_fine(data, value):
        return None
    return Encoded(data, attachments)


class _Meanings:
    """Puts attachments in the place of what stands for them."""

    def __init__(self, attachments: tuple[Any, ...], *, escaped: bool) -> None:
        self._attachments = attachments
        self._named = [False] * len(attachments)
        self._escaped = escaped  # some names may have to be read

    def members(self, members: dict[str, Any]) -> Any:
        """Return what an object means."""
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
            named, data = self._named[index], self._attachments[index]
            if named or index < 0:
                raise ValueError(f"attachment {index} is named twice")  # noqa: TRY301
            self._named[index] = True
            if type(data.obj) in (bytes, bytearray):  # it came within the frame
                data = bytes(data) if len(data) < _wire.LEAST_VIEW_BYTES else data.toreadonly()
            return _array(data, *array_type) if array_type else data
        except Exception as error:
            raise _wire.ProtocolError(f"a placeholder cannot be read: {type(error).__name__}: {error}") from error

    def check(self) -> None:
        """Check that each was named."""
        if not all(self._named):
            raise _wire.ProtocolError(f"nothing stands for attachment {self._named.index(False)}")


def scan(body: Any, attachments: tuple[Any, ...]) -> Any:
    """Read a body with attachments.

    Raises `ProtocolError` for a wrong placeholder, `UnmappedError` for an attachment that this process could not map,
    and `ValueError` otherwise.
    """
    for data in attachments:
        if isinstance(data, _wire.UnmappedError):
            raise data
    text = str(body, "utf-8")
    meanings = _Meanings(attachments, escaped=text.count("\\u0000") != len(attachments))
    value, end = _values.scanner(meanings.members)(text, 0)
    if end != len(text):
        raise ValueError("something follows it")
    meanings.check()
    return value


def _array(data: Any, dtype: str, shape: list[int]) -> Any:
    size = int(dtype[2:])
    for length in shape:
        size *= length
    if size != len(data) or min(shape, default=0) < 0 or dtype[0] not in "<>|" or dtype[1] not in _ARRAY_KINDS:
        raise ValueError(f"{len(data)} bytes are no array of {dtype} and shape {shape}")
    try:
        import numpy as np
    except Exception:  # it is not there, or does not work
        return _view(data, dtype, shape)
    return np.ndarray(shape, dtype, data)


def _view(data: Any, dtype: str, shape: list[int]) -> memoryview:
    view = memoryview(data)
    code = _FORMATS.get(dtype[1:])
    if code is None or dtype[0] not in (_NATIVE, "|") or not all(shape):
        return view
    cast: Any = view.cast("B").cast  # only known with formats written out
    shaped: memoryview = cast(code, shape)
    return shaped
