"""Faster codecs than the standard library's, where they can be imported, under the same rules.

Either reads whatever the host sends. Only orjson writes, and only behind checks, because by itself it takes more than
the rules allow: `marshal` refuses every type that is not one of Python's own, subclasses included, and what it takes
beside JSON's types (bytes, sets, complex numbers) orjson refuses; integers and lone surrogates orjson checks itself;
the depth is looked for in the text. Both checks are C code and cost less than they save. Whatever is refused goes the
slow way, which accepts it or says why not. msgspec takes sets, dates, long integers and more, and there is no cheap
check for these, so it only reads.
"""

from __future__ import annotations

from marshal import dumps as _only_own_types

from hatchery import _values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Callable

_MARSHAL_VERSION = 2  # the later ones look for objects that occur twice


def choose(name: str) -> None:
    """Use the codec that the host asks for. Raises `ImportError` when it is demanded and not there."""
    if name == "auto":
        _values.look_for_codecs()
    elif name != "json":
        _use(_import(name))


def _import(name: str) -> ModuleType:
    try:
        if name == "orjson":
            import orjson

            return orjson
        if name == "msgspec":
            import msgspec.json

            return msgspec
    except Exception as error:
        message = f"the codec {name!r} was asked for, but it cannot be imported ({type(error).__name__}: {error})"
        raise ImportError(f"{message}: install it with pip install {name}, or choose Codec::Auto") from error
    raise ImportError(f"the codec {name!r} is unknown to this worker")


def find() -> None:
    """Import what there is, at the first large body."""
    _values.consider = None
    for name in ("orjson", "msgspec"):
        try:
            _use(_import(name))
        except ImportError:
            continue
        return
    _values.large_bytes = _values.NEVER


def _use(codec: ModuleType) -> None:
    if codec.__name__ == "orjson":
        _values.fast_encode = _orjson_encoder(codec)
        _values.fast_decode = codec.loads
        _values.large_bytes = 1024  # below, what there is to win is less than what it takes to choose
    else:
        _values.fast_decode = codec.json.Decoder().decode
        _values.large_bytes = 1024


def _orjson_encoder(orjson: Any) -> Callable[[Any], bytes | None]:
    dumps = orjson.dumps
    # What of these is left to `default`, and there is none, is refused.
    options = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS

    def encode(value: Any) -> bytes | None:
        try:
            data: bytes = dumps(value, None, options)
            _only_own_types(value, _MARSHAL_VERSION)
        except Exception:
            return None
        return None if _values.is_too_deep(data) else data

    return encode
