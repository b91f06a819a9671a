"""What may cross between the caller and EngineCore (v1/serial_utils.py).

The real one speaks msgpack, this one JSON, with the same rules: plain data goes, tuples and sets arrive as lists,
dataclasses as dicts; anything else needs VLLM_ALLOW_INSECURE_SERIALIZATION=1 and is pickled. JSON has no bytes and only
strings as keys, so both are written as a list under a marker.
"""

import base64
import dataclasses
import json
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import vllm.envs as envs

_BYTES, _PAIRS, _PICKLE = "\0bytes", "\0pairs", "\0pickle"


def encode(message: Any) -> bytes:
    return json.dumps(_to_json(message)).encode()


def decode(message: bytes) -> Any:
    return json.loads(message, object_hook=_from_json)


def _to_json(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_to_json(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {_PAIRS: [[_to_json(key), _to_json(item)] for key, item in value.items()]}
    if isinstance(value, (bytes, bytearray)):
        return {_BYTES: base64.b64encode(value).decode()}
    if not envs.VLLM_ALLOW_INSECURE_SERIALIZATION:
        # The missing space is the real one's.
        raise TypeError(
            f"Object of type {type(value)} is not serializable"
            "Set VLLM_ALLOW_INSECURE_SERIALIZATION=1 to allow fallback to pickle-based serialization."
        )
    # The real one takes functions by value, with cloudpickle; here they must be importable on the other side.
    return {_PICKLE: base64.b64encode(pickle.dumps(value)).decode()}


def _from_json(marked: dict[str, Any]) -> Any:
    ((kind, value),) = marked.items()
    if kind == _PAIRS:
        return dict(value)
    raw = base64.b64decode(value)
    if kind == _BYTES:
        return raw
    if kind == _PICKLE and envs.VLLM_ALLOW_INSECURE_SERIALIZATION:
        return pickle.loads(raw)
    raise NotImplementedError(f"Extension type {kind!r} is not supported")


def run_method(target: Any, method: str | Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs a method by name, or a function with `target` as its first argument."""
    if isinstance(method, str):
        try:
            function = getattr(target, method)
        except AttributeError:
            raise NotImplementedError(f"Method {method!r} is not implemented.") from None
    else:
        function = partial(method, target)
    return function(*args, **kwargs)
