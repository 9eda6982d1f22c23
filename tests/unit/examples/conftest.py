"""Example models, built once in this process and opened by ONNX Runtime."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import onnxruntime
import pytest

from examples.catalog import EXAMPLES

if TYPE_CHECKING:
    import onnx


@cache
def built(name: str) -> onnx.ModelProto:
    return EXAMPLES[name].build()


@cache
def session(name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(built(name).SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.fixture
def digits() -> onnxruntime.InferenceSession:
    return session("digits")


@pytest.fixture
def minilm() -> onnxruntime.InferenceSession:
    return session("minilm")


@pytest.fixture
def resnet50() -> onnxruntime.InferenceSession:
    return session("resnet50")


@pytest.fixture
def resnet50_model() -> onnx.ModelProto:
    return built("resnet50")


@pytest.fixture(params=sorted(EXAMPLES))
def example_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def example_session(example_name: str) -> onnxruntime.InferenceSession:
    return session(example_name)


@pytest.fixture
def example_model(example_name: str) -> onnx.ModelProto:
    return built(example_name)
