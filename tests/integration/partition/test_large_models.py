"""A model above 4 GB is planned and split in less than 1 GB of memory, and each stage holds its own weights only."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import TensorProto, helper

from shardline.partition.graph import read_graph
from shardline.partition.plan import load_plan

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, WIDTH = 17, 8192
LAYER_BYTES = WIDTH * WIDTH * 4
DISK_BYTES = 12 * 10**9


def write_large_model(folder: Path) -> Path:
    """A chain of products with 256 MiB weights each in one sparse external file."""
    weights, nodes = [], []
    for layer in range(LAYERS):
        tensor = onnx.TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", layer * LAYER_BYTES), ("length", LAYER_BYTES)):
            tensor.external_data.add(key=key, value=str(value))
        weights.append(tensor)
        nodes.append(helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"], name=f"layer{layer}"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x0", f"x{LAYERS}")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with (folder / "weights").open("wb") as file:
        file.truncate(LAYERS * LAYER_BYTES)
        for layer in range(LAYERS):
            file.seek(layer * LAYER_BYTES)
            file.write(bytes([layer + 1]) * 64)
    return path


@pytest.mark.timeout(300)
def test_a_model_above_4_gb_is_split_in_less_than_1_gb_of_memory(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < DISK_BYTES:
        pytest.skip("needs 12 GB of free disk for a generated model and its stages")
    try:
        path = write_large_model(tmp_path)
        assert LAYERS * LAYER_BYTES > 4 * 2**30
        out = tmp_path / "stages"
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.partition.large_model", str(path), str(out), "estimate"],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["peak_bytes"] < 2**30
        plan = load_plan(out)
        assert len(plan.stages) >= 2
        held = 0
        for stage, file in zip(plan.stages, report["stages"], strict=True):
            graph = read_graph(type(path)(file))
            assert graph.weight_bytes == stage.weight_bytes <= 2.5 * 2**30
            first = next(iter(graph.weights.values()))
            assert first.source is not None
            with first.source.path.open("rb") as data:
                data.seek(first.source.offset)
                assert data.read(64) == bytes([int(first.name[1:]) + 1]) * 64
            held += graph.weight_bytes
        assert held == LAYERS * LAYER_BYTES
    finally:
        shutil.rmtree(tmp_path / "stages", ignore_errors=True)
        (tmp_path / "weights").unlink(missing_ok=True)
