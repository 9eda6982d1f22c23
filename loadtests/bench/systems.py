"""The systems under comparison: how each is started for one model, and how one request is asked of it."""

from __future__ import annotations

import http.client
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np

from loadtests.bench.processes import free_port, running
from loadtests.tensors import ELEMENT_TYPES, grpc_frame, infer_request
from shardline.pb.inference import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from loadtests.bench.models import BenchModel
    from loadtests.bench.processes import Tree

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_READY_WITHIN_S = 180.0
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_MOSEC_BATCH = {"digits": 64, "minilm": 32, "resnet50": 8}
_NUMPY = {row.name: row.numpy for row in ELEMENT_TYPES.values()}


@dataclass(frozen=True, slots=True)
class System:
    """One server program in one configuration. grpc: whether it speaks Open Inference over gRPC, else raw HTTP.

    arguments: further ones of `shardline serve`.
    """

    key: str
    label: str
    grpc: bool = True
    front: str = ""
    replicas: int = 0
    environment: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()


_ALLOCATOR = (("MALLOC_MMAP_THRESHOLD_", str(1 << 30)), ("MALLOC_TRIM_THRESHOLD_", str(4 << 30)))
"""glibc keeps large buffers instead of mapping each anew, as Shardline's processes do by themselves."""

SYSTEMS = {
    system.key: system
    for system in (
        System("plain", "plain grpc.aio"),
        System("plain-malloc", "plain, allocator set", environment=_ALLOCATOR),
        System("mosec", "mosec", grpc=False),
        System("native-1", "Shardline native ×1", front="native", replicas=1),
        System("native-2", "Shardline native ×2", front="native", replicas=2),
        System("grpcio-1", "Shardline grpcio ×1", front="grpcio", replicas=1),
        System("grpcio-2", "Shardline grpcio ×2", front="grpcio", replicas=2),
    )
}


DEFAULT = tuple(key for key in SYSTEMS if key != "plain-malloc")
"""What a run compares unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running system, ready to answer for one model."""

    system: System
    model: BenchModel
    port: int
    tree: Tree

    @property
    def url(self) -> str:
        """What the load generator posts to."""
        return f"http://127.0.0.1:{self.port}{METHOD if self.system.grpc else '/inference'}"

    @property
    def body(self) -> Path:
        """What the load generator posts."""
        return self.model.grpc_body if self.system.grpc else self.model.raw_body


def start(system: System, model: BenchModel, work: Path) -> AbstractContextManager[Endpoint]:
    """Start a system for one model and wait for its first right answer. Raises ServerFailed."""
    return _Started(system, model, work)


class _Started:
    """Context manager behind `start`."""

    def __init__(self, system: System, model: BenchModel, work: Path) -> None:
        self.system, self.model, self.port = system, model, free_port()
        command, environment = _command(system, model, work, self.port)
        self.server = running(
            command,
            work / "logs" / f"{model.name}-{system.key}.log",
            lambda: right_answer(system, model, self.port, timeout_s=5.0) is not None,
            deadline_s=_READY_WITHIN_S,
            environment=environment,
        )

    def __enter__(self) -> Endpoint:
        return Endpoint(self.system, self.model, self.port, self.server.__enter__())

    def __exit__(self, *exception: object) -> None:
        self.server.__exit__(*exception)  # type: ignore[arg-type]


def _command(system: System, model: BenchModel, work: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """Command line and extra environment."""
    if system.key.startswith("plain"):
        arguments = ["--model", str(model.path), "--name", model.name, "--port", str(port)]
        return [sys.executable, "-m", "loadtests.plain_server", *arguments], dict(system.environment)
    if system.key == "mosec":
        python = work.parent / "venvs" / "mosec" / "bin" / "python"
        environment = {"MODEL": str(model.path), "MAX_BATCH": str(_MOSEC_BATCH.get(model.name, 16))}
        script = Path(__file__).parents[1] / "mosec_server.py"
        return [str(python), str(script), "--address", "127.0.0.1", "--port", str(port), "--log-level", "warning"], (
            environment | {"MOSEC_TIMEOUT": "60000"}
        )
    options = ["--front", system.front, "--replicas", str(system.replicas)]
    ports = ["--port", str(port), "--metrics-port", str(free_port())]
    command = [sys.executable, "-m", "shardline.cli", "serve", str(model.repository), *options, *ports]
    command += system.arguments
    return command, dict(system.environment)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as arrays, and the size of the HTTP body it came in."""

    outputs: dict[str, NDArray[np.generic]]
    body_bytes: int


def right_answer(system: System, model: BenchModel, port: int, timeout_s: float) -> Answer | None:
    """Ask one real request; None where the answer is wrong, an error, or nobody listens yet."""
    try:
        answer = _ask_grpc(model, port, timeout_s) if system.grpc else _ask_raw(model, port, timeout_s)
    except (OSError, http.client.HTTPException, grpc.RpcError):
        return None
    pairs = ((answer.outputs[name], array) for name, array in model.expected.items())
    return answer if all(np.allclose(got, expected, rtol=1e-3, atol=1e-4) for got, expected in pairs) else None


def _ask_grpc(model: BenchModel, port: int, timeout_s: float) -> Answer:
    with grpc.insecure_channel(f"127.0.0.1:{port}", _UNLIMITED) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        data = call(infer_request(model.name, model.inputs).SerializeToString(), timeout=timeout_s)
    response = pb.ModelInferResponse.FromString(data)
    outputs = {
        tensor.name: np.frombuffer(raw, _NUMPY[tensor.datatype]).reshape(tensor.shape)
        for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    return Answer(outputs, len(grpc_frame(data)))


def _ask_raw(model: BenchModel, port: int, timeout_s: float) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("POST", "/inference", model.raw_body.read_bytes())
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise http.client.HTTPException(f"status {answer.status}: {data[:200]!r}")
    return Answer(dict(_split(data, model.expected)), len(data))


def _split(data: bytes, like: dict[str, NDArray[np.generic]]) -> Iterator[tuple[str, NDArray[np.generic]]]:
    at = 0
    for name, array in like.items():
        yield name, np.frombuffer(data, array.dtype, array.size, at).reshape(array.shape)
        at += array.nbytes
