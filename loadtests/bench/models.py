"""The benchmark's models: the examples of `build/models`, each laid out alone, with one request and its answer."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnxruntime as ort

from loadtests.tensors import grpc_frame, infer_request, raw_body, sample_inputs

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

ALL = ("digits", "identity_image", "image_mean", "minilm", "resnet50")


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


def prepare(name: str, source: Path, work: Path, repository: Path | None = None) -> BenchModel:
    """Lay out one model in a repository of its own under `work`, or in the given one beside others.

    Raises FileNotFoundError, with what to do, where the model was never made.
    """
    repository = repository or work / "repository" / name
    target = repository / name
    shutil.rmtree(target, ignore_errors=True)
    if not (source / name).is_dir():
        raise FileNotFoundError(f"{source / name} does not exist: python -m examples.build makes the example models")
    shutil.copytree(source / name, target, copy_function=_link)
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
