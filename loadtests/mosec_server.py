"""mosec, the fastest peer, serving one ONNX model over HTTP/1.1 with raw bytes. Runs in an environment of its own.

Raw bytes cost mosec the least: no JSON, no msgpack, no protobuf. One stage, one worker, ONNX Runtime with a thread per
core, dynamic batching of up to MAX_BATCH rows with a wait of 1 ms (its shortest).

    MODEL=build/models/digits/1/model.onnx MAX_BATCH=64 python loadtests/mosec_server.py --port 9002
"""

import os
from math import prod
from typing import Any

import numpy as np
import onnxruntime as ort
from mosec import Server, Worker

NUMPY = {"tensor(float)": "<f4", "tensor(int64)": "<i8", "tensor(int32)": "<i4", "tensor(double)": "<f8"}
MAX_BATCH = int(os.environ.get("MAX_BATCH", "64"))
WAIT_MS = 1


class OnnxWorker(Worker):
    """Rows in, rows out; a batch is one run of the session."""

    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()
        options = ort.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.inputs = [(i.name, np.dtype(NUMPY[i.type]), i.shape[1:]) for i in self.session.get_inputs()]
        self.fixed = all(isinstance(size, int) for _, _, dims in self.inputs for size in dims)

    def deserialize(self, data: bytes) -> list[np.ndarray]:
        """One row of every input; where a length is symbolic, all inputs share it and it follows from the size."""
        free = 1
        if not self.fixed:
            known = [dtype.itemsize * prod(d for d in dims if isinstance(d, int)) for _, dtype, dims in self.inputs]
            free = len(data) // sum(known)
        arrays, at = [], 0
        for _, dtype, dims in self.inputs:
            shape = tuple(size if isinstance(size, int) else free for size in dims)
            arrays.append(np.frombuffer(data, dtype, prod(shape), at).reshape(shape))
            at += arrays[-1].nbytes
        return arrays

    def serialize(self, data: list[np.ndarray]) -> bytes:
        """All outputs of one row, one after the other."""
        return b"".join(array.tobytes() for array in data)

    def forward(self, data: Any) -> Any:
        """A list of rows where batching is on, else one row."""
        rows = data if MAX_BATCH > 1 else [data]
        feeds = {name: np.stack([row[at] for row in rows]) for at, (name, _, _) in enumerate(self.inputs)}
        outputs = self.session.run(None, feeds)
        answers = [[output[at] for output in outputs] for at in range(len(rows))]
        return answers if MAX_BATCH > 1 else answers[0]


if __name__ == "__main__":
    server = Server()
    server.append_worker(OnnxWorker, num=1, max_batch_size=MAX_BATCH, max_wait_time=WAIT_MS)
    server.run()
