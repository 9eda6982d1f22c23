"""Sessions on the device answer as sessions on the CPU do."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shardline.core.datatypes import BY_NAME
from shardline.core.errors import ModelFailed, ModelRejected
from shardline.replica.devices import DeviceOptions, choose_device, cuda_devices
from shardline.replica.runtime import Run, Session, available_providers
from shardline.repository import load_spec
from tests import onnx_models

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

CPU = DeviceOptions()
GENERATOR = np.random.default_rng(11)


def session(folder: Path, model: onnx.ModelProto, device: DeviceOptions, config: str = "max_batch_size: 8") -> Session:
    onnx_models.save(folder, "m", 1, model, config)
    loaded = load_spec(folder, "m", 1)
    return Session(loaded.model_path, loaded.spec, device)


def test_the_device_is_found(kind: str) -> None:
    assert choose_device("auto", available_providers(), cuda_devices()) == kind


@pytest.mark.parametrize("name", ["FP32", "FP64", "FP16", "INT64", "INT32"])
def test_each_type_is_added_as_on_the_cpu(tmp_path: Path, device: DeviceOptions, name: str) -> None:
    rows = GENERATOR.integers(-50, 50, (5, 4)).astype(BY_NAME[name].numpy)
    model = onnx_models.add_one(name)
    (here,) = session(tmp_path / "a", model, device).run({"x": rows}, ["y"])
    (there,) = session(tmp_path / "b", model, CPU).run({"x": rows}, ["y"])
    assert here.dtype == there.dtype
    np.testing.assert_array_equal(here, there)


def test_text_passes_by_the_device(tmp_path: Path, device: DeviceOptions) -> None:
    rows = np.array([["a", "ä"], ["", "longer than the others"]], dtype=object)
    (here,) = session(tmp_path, onnx_models.string_identity(), device, "").run({"x": rows.reshape(-1, 1)}, ["y"])
    assert here.reshape(-1).tolist() == rows.reshape(-1).tolist()


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_products_equal_the_cpus_within_rounding(tmp_path: Path, device: DeviceOptions, rows: int) -> None:
    feeds = {"x": GENERATOR.standard_normal((rows, 512), dtype=np.float32)}
    model = onnx_models.matmul(512, 256, seed=3)
    (here,) = session(tmp_path / "a", model, device, "max_batch_size: 64").run(feeds, ["y"])
    (there,) = session(tmp_path / "b", model, CPU, "max_batch_size: 64").run(feeds, ["y"])
    # TF32 keeps 10 bits of the mantissa; sums of 512 products of unit variance are about 23.
    assert float(np.abs(here - there).max()) <= 2e-3 * float(np.abs(there).max())


def test_many_sizes_one_after_another_do_not_disturb_each_other(tmp_path: Path, device: DeviceOptions) -> None:
    running = session(tmp_path, onnx_models.add_one(), device, "max_batch_size: 64")
    for rows in (1, 64, 3, 17, 64, 1):
        feed = GENERATOR.standard_normal((rows, 4), dtype=np.float32)
        (answer,) = running.run({"x": feed}, ["y"])
        np.testing.assert_array_equal(answer, feed + 1)


def test_what_the_runtime_refuses_fails_and_the_next_run_is_right(tmp_path: Path, device: DeviceOptions) -> None:
    running = session(tmp_path, onnx_models.hard_coded_reshape(), device)
    (name,) = (tensor.name for tensor in running.spec.inputs)
    one = np.ones((1, 4), np.float32)
    before = running.run({name: one}, running.output_names)
    with pytest.raises(ModelFailed, match="model failed"):
        running.run({name: np.ones((3, 4), np.float32)}, running.output_names)
    np.testing.assert_array_equal(running.run({name: one}, running.output_names), before)


def test_a_run_can_be_ended_from_another_thread(tmp_path: Path, device: DeviceOptions) -> None:
    running = session(tmp_path, onnx_models.slow(2_000_000), device, "max_batch_size: 1")
    feeds: dict[str, Any] = {"x": np.zeros((1, 4), np.float32)}
    run = Run()
    timer = threading.Timer(0.3, run.terminate)
    began = time.monotonic()
    timer.start()
    with pytest.raises(ModelFailed):
        running.run(feeds, ["y"], run)
    assert run.terminated
    assert time.monotonic() - began < 60


def test_a_device_that_is_not_there_is_refused(kind: str) -> None:
    with pytest.raises(ModelRejected, match="device"):
        choose_device("cuda", available_providers(), cuda_devices() if kind == "cuda" else 0, index=99)
