"""The benchmark's models: the examples of `build/models`, and two of its own that are all transport."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from loadtests.tensors import grpc_frame, infer_request, raw_body, sample_inputs

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

ALL = ("digits", "identity_image", "image_mean", "minilm", "resnet50")
IMAGE_CONFIG = 'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 32\n'


@dataclass(frozen=True, slots=True)
class BenchModel:
    """A model ready to be measured.

    repository: a folder that holds this model only, in Triton's layout. path: its ONNX file.
    inputs and expected: one row and its answer by ONNX Runtime in this process.
    grpc_body and raw_body: files with the same row as h2load posts it.
    """

    name: str
    repository: Path
    path: Path
    inputs: dict[str, NDArray[np.generic]]
    expected: dict[str, NDArray[np.generic]]
    grpc_body: Path
    raw_body: Path


def prepare(name: str, source: Path, work: Path) -> BenchModel:
    """Lay out one model under `work`. Raises FileNotFoundError, with what to do, where it was never made."""
    repository = work / "repository" / name
    shutil.rmtree(repository, ignore_errors=True)
    target = repository / name
    if (source / name).is_dir():
        shutil.copytree(source / name, target, copy_function=_link)
    elif name in ("identity_image", "image_mean"):
        _write_image_model(name, target)
    else:
        raise FileNotFoundError(f"{source / name} does not exist: make the example models first (make models)")
    path = max((target).glob("*/model.onnx"), key=lambda found: int(found.parent.name))
    inputs, expected = _one_answer(path)
    bodies = work / "bodies"
    bodies.mkdir(parents=True, exist_ok=True)
    grpc_body, raw = bodies / f"{name}.grpc", bodies / f"{name}.raw"
    grpc_body.write_bytes(grpc_frame(infer_request(name, inputs).SerializeToString()))
    raw.write_bytes(raw_body(inputs))
    return BenchModel(name, repository, path, inputs, expected, grpc_body, raw)


def _link(source: str, target: str) -> None:
    """Hard links where the file system has them: a model of 100 MB is not copied, and no path leaves the repository."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _one_answer(path: Path) -> tuple[dict[str, NDArray[np.generic]], dict[str, NDArray[np.generic]]]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = sample_inputs(session)
    names = [output.name for output in session.get_outputs()]
    return inputs, dict(zip(names, session.run(names, inputs), strict=True))


def _write_image_model(name: str, target: Path) -> None:
    """FP32 [b,3,224,224] in (602 kB a row), and the same out, or its mean: the cost of moving tensors and nothing else."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 224, 224])
    if name == "identity_image":
        node = helper.make_node("Identity", ["image"], ["same"])
        out = helper.make_tensor_value_info("same", TensorProto.FLOAT, ["batch", 3, 224, 224])
    else:
        node = helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0)
        out = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph([node], name, [image], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (target / "1").mkdir(parents=True)
    onnx.save(model, target / "1" / "model.onnx")
    (target / "config.pbtxt").write_text(IMAGE_CONFIG.format(name=name))
