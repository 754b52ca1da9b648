"""Optional faster JSON codecs, under the same rules as `_values`, which imports this module when it needs one.

| codec | decodes | encodes |
|---|---|---|
| orjson | yes | yes, with two checks |
| msgspec | yes | no: it accepts sets, dates, long integers and more, and no cheap check finds these |

orjson alone accepts more than the rules allow. First check: `marshal` refuses every type that is not built in, also
subclasses; orjson refuses the built-in types that JSON lacks (bytes, sets, complex numbers). Second check: the depth of
the encoded text. orjson itself refuses long integers and lone surrogates. Both checks are C code and cost less than
orjson saves. A refused value goes to the slow encoder, which accepts it or reports why not.
"""

from __future__ import annotations

from marshal import dumps as _only_own_types

from hatchery import _values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Callable

_MARSHAL_VERSION = 2  # later versions also search for objects that occur twice


def choose(name: str) -> None:
    """Use the codec that the host names. Raises `ImportError` when that codec cannot be imported."""
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
        message = f"the codec {name!r} cannot be imported ({type(error).__name__}: {error})"
        raise ImportError(f"{message}: install it with pip install {name}, or choose Codec::Auto") from error
    raise ImportError(f"the codec {name!r} is unknown: choose json, orjson, msgspec or auto")


def find() -> None:
    """Import the fastest codec that is installed. Called before the first large body."""
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
        _values.large_bytes = 1024  # below this size the choice costs more than the codec saves
    else:
        _values.fast_decode = codec.json.Decoder().decode
        _values.large_bytes = 1024


def _orjson_encoder(orjson: Any) -> Callable[[Any], bytes | None]:
    dumps = orjson.dumps
    # These types are passed to `default`; there is none, so orjson refuses them.
    options = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS

    def encode(value: Any) -> bytes | None:
        try:
            data: bytes = dumps(value, None, options)
            _only_own_types(value, _MARSHAL_VERSION)
        except Exception:
            return None
        return None if _values.is_too_deep(data) else data

    return encode
