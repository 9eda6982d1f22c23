"""`infer`, `models`, `load` and `unload`: one or few calls to a server."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from shardline.cli.failure import Failure
from shardline.cli.inputs import parse_given, read_inputs
from shardline.cli.kube import reached
from shardline.cli.render import (
    duration_text,
    json_values,
    print_json,
    print_table,
    receipt_lines,
    shape_text,
    values_text,
)
from shardline.cli.target import Target, find_target
from shardline.coord.connection import Connection
from shardline.coord.errors import RedisAway
from shardline.coord.status import ClusterView, cluster_view
from shardline.local.samples import REFUSED, answer_to_sample
from shardline.wire.arrays import datatype_of
from shardline.wire.client import Answer, CallFailed, InferenceClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from shardline.wire.client import ModelEntry, ModelMetadata, TensorMetadata

Result = TypeVar("Result")


def call(url: str | None, timeout_s: float, work: Callable[[InferenceClient], Awaitable[Result]]) -> Result:
    """Run `work` with a client of the server that is meant. Raises Failure."""
    target = find_target(url)

    async def connected() -> Result:
        async with reached(target) as address, InferenceClient(address, timeout_s=timeout_s) as client:
            return await work(client)

    try:
        return asyncio.run(connected())
    except CallFailed as failure:
        raise Failure(explain(failure, target.url)) from failure
    except KeyboardInterrupt:
        raise Failure("interrupted") from None


def explain(failure: CallFailed, url: str) -> str:
    """A failed call in one line, with what to do where that is known."""
    connecting = ("failed to connect", "connections to all backends failing", "name resolution", "no such host")
    if failure.status == "UNAVAILABLE" and any(words in failure.message.lower() for words in connecting):
        return f"no server at {url}; start one with `shardline serve REPOSITORY`, or name it with --url HOST:PORT"
    if failure.status == "DEADLINE_EXCEEDED":
        return f"{failure}; --timeout gives it longer"
    if failure.status == "NOT_FOUND":
        return f"{failure}; `shardline models` lists what is served"
    return str(failure)


def run_infer(
    url: str | None, model: str, version: str, given: tuple[str, ...], timeout_s: float, *, as_json: bool
) -> None:
    """`shardline infer`."""
    parsed = [parse_given(text) for text in given]

    async def work(client: InferenceClient) -> Answer:
        if not parsed:
            return await _answer_to_sample(client, model, version)
        metadata = await client.model_metadata(model, version)
        inputs = read_inputs(parsed, {spec.name: spec for spec in metadata.inputs}, sys.stdin.read)
        return await client.infer(model, inputs, version=version)

    answer = call(url, timeout_s, work)
    if as_json:
        print_json(answer_json(model, answer))
        return
    title = f"{model} version {answer.version}, answered in {duration_text(answer.latency_s)}"
    print_table(("output", "type", "shape", "values"), answer_rows(answer), title=title)
    if not given:
        sys.stdout.write("The input was generated from the model's signature; --input sends yours.\n")
    for line in receipt_lines(answer.receipt):
        sys.stdout.write(f"{line}\n")


async def _answer_to_sample(client: InferenceClient, model: str, version: str) -> Answer:
    try:
        return await answer_to_sample(client, model, version)
    except CallFailed as failure:
        if failure.status in REFUSED:
            raise Failure(f"{failure}; the input was made up from the signature: send yours with --input") from failure
        raise


def answer_rows(answer: Answer) -> list[tuple[str, ...]]:
    """Rows of the table of outputs."""
    return [
        (name, datatype_of(array).name, shape_text(array.shape), values_text(array)) for name, array in answer.items()
    ]


def answer_json(model: str, answer: Answer) -> dict[str, Any]:
    """What `infer --json` prints."""
    return {
        "model": model,
        "version": answer.version,
        "outputs": {
            name: {"datatype": datatype_of(array).name, "shape": list(array.shape), "data": json_values(array)}
            for name, array in answer.items()
        },
        "latency_s": answer.latency_s,
        "receipt": list(answer.receipt),
    }


def run_models(url: str | None, timeout_s: float, *, as_json: bool) -> None:
    """`shardline models`."""

    async def work(client: InferenceClient) -> list[tuple[ModelEntry, ModelMetadata | None]]:
        index = await client.repository_index()
        return [
            (entry, await client.model_metadata(entry.name, entry.version) if entry.state == "READY" else None)
            for entry in index
        ]

    found = call(url, timeout_s, work)
    replicas = _replicas(find_target(url))
    if as_json:
        print_json(
            [
                asdict(entry)
                | {"replicas": replicas.get((entry.name, entry.version), [])}
                | (_metadata_json(metadata) if metadata else {})
                for entry, metadata in found
            ]
        )
        return
    print_table(
        ("model", "version", "state", "replicas", "inputs", "outputs", "reason"),
        [model_row(*item, replicas.get((item[0].name, item[0].version), ())) for item in found],
    )


def _replicas(target: Target) -> dict[tuple[str, str], list[int]]:
    """Replicas that are ready of each stage, by model and version; empty where the cluster's Redis is not known or away."""
    if not target.redis:
        return {}
    try:
        view = asyncio.run(_view(target))
    except RedisAway:
        return {}
    counts: dict[tuple[str, str], list[int]] = {}
    for pool in view.pools:
        of_stage = counts.setdefault((pool.pool.model, str(pool.pool.version)), [])
        of_stage.extend([0] * (pool.pool.stage + 1 - len(of_stage)))
        of_stage[pool.pool.stage] = pool.ready
    return counts


async def _view(target: Target) -> ClusterView:
    async with Connection(target.redis, target.cluster) as connection:
        return await cluster_view(connection)


def model_row(entry: ModelEntry, metadata: ModelMetadata | None, replicas: Sequence[int] = ()) -> tuple[str, ...]:
    """A row of the table of models. replicas: of each stage, none where that is not known."""
    inputs, outputs = (metadata.inputs, metadata.outputs) if metadata else ((), ())
    counts = "+".join(map(str, replicas)) or "-"
    tensors = (_tensors_text(inputs), _tensors_text(outputs))
    return (entry.name, entry.version or "-", entry.state, counts, *tensors, entry.reason)


def run_load(url: str | None, model: str, timeout_s: float) -> None:
    """`shardline load`."""
    call(url, timeout_s, lambda client: client.load(model))
    sys.stdout.write(f"{model} is loaded\n")


def run_unload(url: str | None, model: str, timeout_s: float) -> None:
    """`shardline unload`."""
    call(url, timeout_s, lambda client: client.unload(model))
    sys.stdout.write(f"{model} is unloaded\n")


def _tensors_text(tensors: Iterable[TensorMetadata]) -> str:
    return "\n".join(f"{spec.name} {spec.datatype} {shape_text(spec.shape)}" for spec in tensors)


def _metadata_json(metadata: ModelMetadata) -> dict[str, Any]:
    return {
        "platform": metadata.platform,
        "inputs": [asdict(spec) for spec in metadata.inputs],
        "outputs": [asdict(spec) for spec in metadata.outputs],
    }
