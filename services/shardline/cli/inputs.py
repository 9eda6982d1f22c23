"""`--input`: what a user may write there, as arrays of the types that the model's signature names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shardline.cli.failure import EXIT_USAGE, Failure
from shardline.core.datatypes import BF16, BY_NAME, BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from shardline.wire.client import TensorMetadata

    Array = np.ndarray[Any, Any]

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class GivenInput:
    """One `--input`: source is `@file`, `-` (standard input) or JSON; name is "" for an object of all inputs."""

    name: str
    source: str


def parse_given(text: str) -> GivenInput:
    """Read one `--input`. Raises Failure (usage).

    >>> parse_given("pixels=@digit.npy")
    GivenInput(name='pixels', source='@digit.npy')
    """
    if text == STANDARD_INPUT or text.startswith(("@", "{")):
        return GivenInput("", text)
    name, found, source = text.partition("=")
    if not found or not name or not source:
        raise Failure(f"--input {text}: write NAME=@file.npy, NAME=JSON, NAME=- or -", EXIT_USAGE)
    return GivenInput(name, source)


def read_inputs(
    given: Iterable[GivenInput], signature: Mapping[str, TensorMetadata], read_stdin: Callable[[], str]
) -> dict[str, Array]:
    """Arrays by input name. Raises Failure that names the input and the values it does not agree with."""
    arrays: dict[str, Array] = {}
    for item in given:
        if item.name:
            arrays[item.name] = _array(item.name, _read(item.source, read_stdin), _spec(item.name, signature))
            continue
        values = _read(item.source, read_stdin)
        if not isinstance(values, dict):
            raise Failure(f"--input {item.source}: expected a JSON object of inputs by name", EXIT_USAGE)
        for name, value in values.items():
            arrays[name] = _array(name, value, _spec(name, signature))
    return arrays


def _spec(name: str, signature: Mapping[str, TensorMetadata]) -> TensorMetadata:
    if name not in signature:
        raise Failure(f"the model has no input {name!r}; its inputs are {', '.join(signature)}", EXIT_USAGE)
    return signature[name]


def _read(source: str, read_stdin: Callable[[], str]) -> Any:
    """An array from an .npy file, or what JSON says."""
    if source.startswith("@") and source.endswith(".npy"):
        try:
            # allow_pickle stays off: a file from elsewhere is data, never code.
            return np.load(source[1:], allow_pickle=False)
        except (OSError, ValueError) as error:
            raise Failure(f"--input {source}: {_why(error)}") from error
    try:
        if source == STANDARD_INPUT:
            text = read_stdin()
        else:
            text = Path(source[1:]).read_text() if source.startswith("@") else source
        return json.loads(text)
    except (OSError, ValueError) as error:
        raise Failure(f"--input {source}: {_why(error)}") from error


def _array(name: str, value: Any, spec: TensorMetadata) -> Array:
    datatype = BY_NAME[spec.datatype]
    try:
        if datatype is BYTES:
            return np.array(value, dtype=object)
        if datatype is BF16:
            # Here, since the import costs start-up time and few models need it.
            import ml_dtypes

            return np.asarray(value, dtype=np.float32).astype(ml_dtypes.bfloat16)
        array = np.asarray(value)
        if not np.can_cast(array.dtype, datatype.numpy, "same_kind") and not _kept(array, datatype.numpy):
            raise Failure(f"input {name}: {array.dtype} values do not fit {spec.datatype}")
        return array.astype(datatype.numpy)
    except (ValueError, TypeError, OverflowError) as error:
        raise Failure(f"input {name}: not an array of {spec.datatype}: {_why(error)}") from error


def _kept(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether a cast loses nothing (JSON has one kind of number, so 1 may mean 1.0 or true)."""
    return bool(array.dtype.kind in "biuf" and np.array_equal(array.astype(dtype).astype(array.dtype), array))


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
