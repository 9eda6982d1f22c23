"""Tests that need a CUDA device: `make test-gpu`.

`make test-gpu ARGS="--device cpu"` runs the same tests on the CPU, so that they can be written and checked without one.
"""

from __future__ import annotations

import pytest

from shardline.replica.devices import CUDA_PROVIDER, DeviceOptions, cuda_devices
from shardline.replica.runtime import available_providers, load_cuda_libraries


def pytest_addoption(parser: pytest.Parser) -> None:
    """The device to test."""
    parser.addoption("--device", choices=("cuda", "cpu"), default="cuda", help="device that the tests run on")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them need the device."""
    for item in items:
        item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def kind(pytestconfig: pytest.Config) -> str:
    """`cuda`, where it can be had."""
    kind: str = pytestconfig.getoption("--device")
    if kind == "cuda":
        if CUDA_PROVIDER not in available_providers():
            pytest.skip("needs onnxruntime-gpu: install the [gpu] extra instead of [cpu]")
        if not cuda_devices():
            pytest.skip("needs a CUDA device; the driver offers none")
        load_cuda_libraries()
    return kind


@pytest.fixture(scope="session")
def device(kind: str) -> DeviceOptions:
    """Options of a session on the first device."""
    return DeviceOptions(kind)
