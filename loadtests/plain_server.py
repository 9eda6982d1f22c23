"""The yardstick: a gRPC model server as a good engineer writes it by hand, without batching and without a second hop.

grpc.aio on uvloop, generated protobuf, raw tensor contents, one ONNX Runtime session with a thread per core. A model
that answers within `INLINE_BELOW_S` runs on the event loop; a slower one in a thread, so that the loop stays free.
(A hand-over to a thread and back costs about 90 µs of CPU, so it is not worth it for a tiny model.)

    python -m loadtests.plain_server --model build/models/digits/1/model.onnx --name digits --port 9001
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import numpy as np
import onnxruntime as ort
import uvloop

from loadtests.tensors import ELEMENT_TYPES, sample_inputs
from shardline.pb.inference import grpc_service_pb2 as pb
from shardline.pb.inference.grpc_service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

INLINE_BELOW_S = 0.002
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def load(path: str, threads: int, *, without: Sequence[str] = ()) -> ort.InferenceSession:
    """A session on the CPU with `threads` threads that do not spin (the load generator needs the cores, too).

    without: optimisations that are left out.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without))


def decode(request: pb.ModelInferRequest) -> dict[str, NDArray[np.generic]]:
    """Raw contents to arrays; the arrays are views into the message."""
    return {
        tensor.name: np.frombuffer(raw, _NUMPY[tensor.datatype]).reshape(tensor.shape)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


_NUMPY = {row.name: row.numpy for row in ELEMENT_TYPES.values()}


class PlainServer(GRPCInferenceServiceServicer):
    """Answers ModelInfer, ServerReady, ModelMetadata and ModelStatistics for one model."""

    def __init__(self, name: str, session: ort.InferenceSession, pool: ThreadPoolExecutor | None) -> None:
        self.name = name
        self.session = session
        self.pool = pool
        self.outputs = [(output.name, ELEMENT_TYPES[output.type].name) for output in session.get_outputs()]
        self.output_names = [name for name, _ in self.outputs]
        self.answered = 0

    def run(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """One request, one run of the session."""
        arrays = self.session.run(self.output_names, decode(request))
        response = pb.ModelInferResponse(model_name=self.name, model_version="1", id=request.id)
        for (name, datatype), array in zip(self.outputs, arrays, strict=True):
            response.outputs.add(name=name, datatype=datatype, shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        self.answered += 1
        return response

    async def ModelInfer(self, request: pb.ModelInferRequest, _context: object) -> pb.ModelInferResponse:  # noqa: N802
        """Run it where `main` found it to be faster."""
        if self.pool is None:
            return self.run(request)
        return await asyncio.get_running_loop().run_in_executor(self.pool, self.run, request)

    async def ServerReady(self, _request: pb.ServerReadyRequest, _context: object) -> pb.ServerReadyResponse:  # noqa: N802
        """The model is loaded before the port opens."""
        return pb.ServerReadyResponse(ready=True)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, _: object) -> pb.ModelMetadataResponse:  # noqa: N802
        """The session's own signature."""
        response = pb.ModelMetadataResponse(name=request.name, versions=["1"], platform="onnxruntime_onnx")
        for specs, into in (
            (self.session.get_inputs(), response.inputs),
            (self.session.get_outputs(), response.outputs),
        ):
            for spec in specs:
                shape = [size if isinstance(size, int) else -1 for size in spec.shape]
                into.add(name=spec.name, datatype=ELEMENT_TYPES[spec.type].name, shape=shape)
        return response

    async def ModelStatistics(self, _request: pb.ModelStatisticsRequest, _: object) -> pb.ModelStatisticsResponse:  # noqa: N802
        """How many requests were answered."""
        response = pb.ModelStatisticsResponse()
        entry = response.model_stats.add(name=self.name, version="1", inference_count=self.answered)
        entry.inference_stats.success.count = self.answered
        return response


def seconds_per_run(session: ort.InferenceSession) -> float:
    """The session's own time for one row: the best of a few runs."""
    inputs = sample_inputs(session)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        session.run(None, inputs)
        best = min(best, time.perf_counter() - begin)
    return best


async def serve(servicer: PlainServer, port: int) -> None:
    """Serve on loopback until SIGTERM or SIGINT."""
    server = grpc.aio.server(options=_UNLIMITED)
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop(1.0)


def main() -> None:
    """Load the model, choose where it runs, serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="path of the ONNX file")
    parser.add_argument("--name", required=True, help="the model's name")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--run", choices=("auto", "inline", "thread"), default="auto")
    options = parser.parse_args()
    session = load(options.model, options.threads)
    inline = options.run == "inline" or (options.run == "auto" and seconds_per_run(session) < INLINE_BELOW_S)
    pool = None if inline else ThreadPoolExecutor(options.threads)
    servicer = PlainServer(options.name, session, pool)  # type: ignore[abstract]  # the other methods: UNIMPLEMENTED
    uvloop.run(serve(servicer, options.port))


if __name__ == "__main__":
    main()
