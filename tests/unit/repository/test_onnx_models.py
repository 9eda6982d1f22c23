"""The models that other tests stand on do what they say, in ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from shardline.core.datatypes import BY_NAME
from shardline.repository import load_spec
from tests import onnx_models

if TYPE_CHECKING:
    from pathlib import Path

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
ALL = {
    "add_one": onnx_models.add_one(),
    "identity": onnx_models.identity(),
    "string_identity": onnx_models.string_identity(),
    "two_inputs": onnx_models.two_inputs(),
    "two_outputs": onnx_models.two_outputs(),
    "matmul": onnx_models.matmul(),
    "no_batch_axis": onnx_models.no_batch_axis(),
    "scalar": onnx_models.scalar(),
    "nan_sensitive": onnx_models.nan_sensitive(),
    "mean_over_batch": onnx_models.mean_over_batch(),
    "hard_coded_reshape": onnx_models.hard_coded_reshape(),
    "slow": onnx_models.slow(),
    "versioned": onnx_models.versioned(7),
    "gather": onnx_models.gather(),
    "pad_sensitive": onnx_models.pad_sensitive(),
    "double_each": onnx_models.double_each(),
}


def session(proto: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(name: str, **inputs: np.ndarray) -> list[np.ndarray]:
    answers: list[np.ndarray] = session(ALL[name]).run(None, inputs)
    return answers


@pytest.mark.parametrize("name", ALL)
def test_a_model_is_valid_and_its_signature_is_what_the_runtime_sees(tmp_path: Path, name: str) -> None:
    onnx.checker.check_model(ALL[name], full_check=True)
    onnx_models.save(tmp_path, name, 1, ALL[name])
    spec = load_spec(tmp_path, name, 1).spec
    runtime = session(ALL[name])
    for ours, theirs in ((spec.inputs, runtime.get_inputs()), (spec.outputs, runtime.get_outputs())):
        assert [tensor.name for tensor in ours] == [value.name for value in theirs]
        assert [tensor.datatype.ort for tensor in ours] == [value.type for value in theirs]
        assert [len(tensor.dims) + spec.batched for tensor in ours] == [len(value.shape) for value in theirs]


@pytest.mark.parametrize("datatype", onnx_models.IDENTITY_TYPES)
def test_the_runtime_loads_an_identity_of_every_data_type(datatype: str) -> None:
    assert session(onnx_models.identity(datatype)).get_inputs()[0].type == BY_NAME[datatype].ort


@pytest.mark.parametrize("datatype", onnx_models.ADD_TYPES)
def test_the_runtime_adds_one_to_every_number(datatype: str) -> None:
    x = np.arange(8).reshape(2, 4).astype(BY_NAME[datatype].numpy)
    (y,) = session(onnx_models.add_one(datatype)).run(None, {"x": x})
    np.testing.assert_array_equal(y, x + x.dtype.type(1))


def test_strings_come_back() -> None:
    x = np.array([["a", "ü"], ["", "b"]], dtype=object)
    assert run("string_identity", x=x)[0].tolist() == x.tolist()


def test_a_version_gives_itself_away() -> None:
    y, version = run("versioned", x=ROWS)
    assert version.tolist() == [7, 7]
    np.testing.assert_array_equal(y, ROWS * 7)


def test_an_index_out_of_range_makes_the_runtime_raise() -> None:
    assert run("gather", index=np.array([0, 3]))[0].tolist() == [[0, 1, 2, 3], [12, 13, 14, 15]]
    with pytest.raises(Exception, match="Gather"):
        run("gather", index=np.array([0, 99]))


def test_a_hard_coded_reshape_fails_above_one_row() -> None:
    assert run("hard_coded_reshape", x=ROWS[:1])[0].tolist() == ROWS[:1].tolist()
    with pytest.raises(Exception, match="Reshape"):
        run("hard_coded_reshape", x=ROWS)


def test_a_neighbour_changes_the_answer_of_the_model_that_reduces_over_the_batch_and_of_no_other() -> None:
    bad = ROWS.copy()
    bad[1] = np.nan
    for name in ("add_one", "nan_sensitive", "matmul", "slow", "versioned"):
        np.testing.assert_allclose(run(name, x=bad)[0][0], run(name, x=ROWS[:1])[0][0], rtol=1e-6)
    assert np.isnan(run("nan_sensitive", x=bad)[0][1]).all()
    assert np.isnan(run("mean_over_batch", x=bad)[0][0]).all()


def test_the_slow_model_answers_its_input_and_runs_its_loop() -> None:
    np.testing.assert_array_equal(run("slow", x=ROWS)[0], ROWS)
    runtime = session(onnx_models.slow(iterations=10_000_000))
    options = onnxruntime.RunOptions()
    options.terminate = True
    with pytest.raises(Exception, match=r"(?i)terminate"):
        runtime.run(None, {"x": ROWS}, options)


def test_padding_with_zero_does_not_change_a_sum_and_doubling_needs_trimming() -> None:
    padded = np.pad(ROWS, ((0, 0), (0, 4)))
    np.testing.assert_array_equal(run("pad_sensitive", x=padded)[0], run("pad_sensitive", x=ROWS)[0])
    np.testing.assert_array_equal(run("double_each", x=padded)[0][:, :4], ROWS * 2)


def test_external_weights_answer_as_inline_ones(tmp_path: Path) -> None:
    folder = onnx_models.save(tmp_path, "m", 1, onnx_models.with_external_data(tmp_path / "m" / "1"))
    runtime = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    (y,) = runtime.run(None, {"x": ROWS})
    np.testing.assert_allclose(y, ROWS @ onnx_models.weights_of(4, 3), rtol=1e-6)
