"""A config's inputs and outputs against the graph's: what is missing is filled, what contradicts is refused.

Pure functions: values in, values or ModelRejected out. Errors name the field and both values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from shardline.core.datatypes import BY_CONFIG_NUMBER
from shardline.core.errors import ModelRejected
from shardline.core.models import Dim, TensorSpec
from shardline.repository.config_mapping import nearest
from shardline.repository.layout import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shardline.pb.inference.model_config_pb2 import ModelConfig, ModelInput, ModelOutput
    from shardline.repository.signature import GraphTensor, Signature


def can_batch(signature: Signature, written: ModelConfig) -> str:
    """Why the model has no batch axis that a batch may grow along, or "" when it has.

    It has one when the first axis of every input and output is dynamic, and no other axis shares its symbolic name
    (then a row's shape would depend on how many rows there are). Where the graph states no shape, the config's dims are
    taken without a batch axis. written: the config as the user wrote it.
    """
    described = {tensor.name for tensor in _written(written) if tensor.dims}
    first: dict[str, str] = {}
    for kind, tensor in _all(signature):
        dims = tensor.dims
        if dims is None and tensor.name not in described:
            return f"{kind} {shown(tensor.name)} has no shape in the model"
        if dims is None:
            continue
        if not dims:
            return f"{kind} {shown(tensor.name)} has no axes (it is a scalar)"
        if isinstance(dims[0], int) and dims[0] >= 0:
            return f"{kind} {shown(tensor.name)} has a fixed first dimension of {dims[0]}"
        if isinstance(dims[0], str):
            first.setdefault(dims[0], tensor.name)
    for kind, tensor in _all(signature):
        for axis, dim in enumerate(tensor.dims or ()):
            if axis and isinstance(dim, str) and dim in first:
                return (
                    f"{kind} {shown(tensor.name)} has the dimension {shown(dim)} at axis {axis}, "
                    f"which is also the first of {shown(first[dim])}"
                )
    return ""


def seems_unbatched(signature: Signature, written: ModelConfig) -> bool:
    """Whether the config's dims, by their number, include the batch axis: then it means max_batch_size 0."""
    ranks = {tensor.name: len(tensor.dims) for _, tensor in _all(signature) if tensor.dims is not None}
    return any(tensor.dims and len(tensor.dims) == ranks.get(tensor.name) for tensor in _written(written))


def merge_tensors(
    signature: Signature, config: ModelConfig, *, batched: bool
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs as served, in the graph's order, dims without the batch axis when batched.

    A symbolic dimension that the config fixes is fixed wherever its name stands.
    Raises ModelRejected: unknown or repeated names, another data type, number of dims or size.
    """
    inputs = _merge_side("input", signature.inputs, config.input, batched=batched)
    outputs = _merge_side("output", signature.outputs, config.output, batched=batched)
    fixed = _fixed_symbols(signature, (*inputs, *outputs), batched=batched)
    return _substitute(inputs, fixed), _substitute(outputs, fixed)


def _written(config: ModelConfig) -> list[ModelInput | ModelOutput]:
    return [*config.input, *config.output]


def _all(signature: Signature) -> Iterable[tuple[str, GraphTensor]]:
    yield from (("input", tensor) for tensor in signature.inputs)
    yield from (("output", tensor) for tensor in signature.outputs)


def _merge_side(
    kind: str, graph: Sequence[GraphTensor], written: Sequence[ModelInput | ModelOutput], *, batched: bool
) -> tuple[TensorSpec, ...]:
    names = [tensor.name for tensor in graph]
    by_name: dict[str, ModelInput | ModelOutput] = {}
    for index, tensor in enumerate(written):
        if not tensor.name:
            raise ModelRejected(f"{kind}[{index}] has no name; the model has {', '.join(map(shown, names))}")
        if tensor.name not in names:
            raise ModelRejected(
                f"{kind} {shown(tensor.name)} is not in the model{nearest(tensor.name, names)}; "
                f"its {kind}s are {', '.join(map(shown, names[:20]))}"
            )
        if tensor.name in by_name:
            raise ModelRejected(f"{kind} {shown(tensor.name)} stands in the config twice")
        by_name[tensor.name] = tensor
    return tuple(_merge_one(kind, tensor, by_name.get(tensor.name), batched=batched) for tensor in graph)


def _merge_one(kind: str, graph: GraphTensor, written: ModelInput | ModelOutput | None, *, batched: bool) -> TensorSpec:
    what = f"{kind} {shown(graph.name)}"
    if written is not None and written.data_type and BY_CONFIG_NUMBER.get(written.data_type) != graph.datatype:
        named = BY_CONFIG_NUMBER.get(written.data_type)
        raise ModelRejected(
            f"{what}: data_type is {named.config if named else written.data_type} in the config, "
            f"but {graph.datatype.config} in the model"
        )
    dims = tuple(written.dims) if written is not None else ()
    if any(dim < -1 for dim in dims):
        raise ModelRejected(f"{what}: dims are {list(dims)} in the config; a dimension is -1 (any), 0 or more")
    item = _item(graph, batched=batched)
    if item is None:
        if not dims:
            raise ModelRejected(f"{what} has no shape in the model; give its dims in the config")
        return TensorSpec(graph.name, graph.datatype, dims)
    if dims:
        _check_dims(what, dims, item, graph, batched=batched)
        item = tuple(own if mine == -1 else mine for mine, own in zip(dims, item, strict=True))
    return TensorSpec(graph.name, graph.datatype, item)


def _check_dims(what: str, dims: tuple[int, ...], item: tuple[Dim, ...], graph: GraphTensor, *, batched: bool) -> None:
    axis = " after the batch axis, which the config leaves out since max_batch_size is above 0" if batched else ""
    fits = len(dims) == len(item) and all(
        isinstance(own, str) or own in (-1, mine) for mine, own in zip(dims, item, strict=True)
    )
    if not fits:
        raise ModelRejected(
            f"{what}: dims are {list(dims)} in the config, but {show_dims(item)} in the model{axis} "
            f"(the model's whole shape is {show_dims(graph.dims or ())})"
        )


def show_dims(dims: Sequence[Dim]) -> str:
    """Dims for people.

    >>> show_dims((1, "n", -1))
    '[1, n, -1]'
    """
    shown_dims = (str(dim) if isinstance(dim, int) else shown(dim).strip("'\"") for dim in dims)
    return f"[{', '.join(shown_dims)}]"


def _fixed_symbols(signature: Signature, merged: Iterable[TensorSpec], *, batched: bool) -> dict[str, int]:
    fixed: dict[str, int] = {}
    origin: dict[str, str] = {}
    for (_, graph), spec in zip(_all(signature), merged, strict=True):
        own = _item(graph, batched=batched)
        for symbol, size in zip(own or (), spec.dims, strict=False):
            if not isinstance(symbol, str) or not isinstance(size, int):
                continue
            if fixed.setdefault(symbol, size) != size:
                raise ModelRejected(
                    f"dims: {shown(symbol)} is one dimension in the model, but {fixed[symbol]} in "
                    f"{shown(origin[symbol])} and {size} in {shown(spec.name)}"
                )
            origin.setdefault(symbol, spec.name)
    return fixed


def _substitute(specs: tuple[TensorSpec, ...], fixed: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    return tuple(
        replace(spec, dims=tuple(fixed.get(dim, dim) if isinstance(dim, str) else dim for dim in spec.dims))
        for spec in specs
    )


def _item(graph: GraphTensor, *, batched: bool) -> tuple[Dim, ...] | None:
    return graph.dims[1:] if batched and graph.dims else graph.dims
