"""Which device is chosen, and what ONNX Runtime is told about it."""

from __future__ import annotations

import ctypes
import re

import pytest

from shardline.core.errors import ModelRejected
from shardline.replica.devices import DeviceOptions, choose_device, cuda_devices, provider_options
from shardline.replica.runtime import session_options

CPU, BOTH = ["CPUExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("asked", "providers", "count", "chosen"),
    [
        ("auto", CPU, 0, "cpu"),
        ("auto", CPU, 2, "cpu"),
        ("auto", BOTH, 0, "cpu"),
        ("auto", BOTH, 1, "cuda"),
        ("cuda", BOTH, 1, "cuda"),
        ("cpu", BOTH, 1, "cpu"),
        ("simulated", BOTH, 1, "simulated"),
    ],
)
def test_cuda_is_chosen_where_it_can_be_used(asked: str, providers: list[str], count: int, chosen: str) -> None:
    assert choose_device(asked, providers, count) == chosen


@pytest.mark.parametrize(
    ("providers", "count", "index", "message"),
    [
        (CPU, 1, 0, "offers only CPUExecutionProvider; install the [gpu] extra"),
        (BOTH, 0, 0, "no NVIDIA driver offers this process a device"),
        (BOTH, 2, 2, "device_index: 2, expected less than 2"),
    ],
)
def test_cuda_that_cannot_be_had_is_refused_with_what_to_do(
    providers: list[str], count: int, index: int, message: str
) -> None:
    with pytest.raises(ModelRejected, match=re.escape(message)):
        choose_device("cuda", providers, count, index)


def test_cuda_sessions_get_their_device_and_their_bound_of_memory() -> None:
    (name, options), (second, _) = provider_options(DeviceOptions("cuda", index=1, memory_limit_bytes=1 << 30))
    assert (name, second) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["device_id"] == "1"
    assert options["gpu_mem_limit"] == str(1 << 30)
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert options["arena_extend_strategy"] == "kSameAsRequested"


def test_without_a_bound_cuda_takes_what_it_needs() -> None:
    (_, options), _ = provider_options(DeviceOptions("cuda"))
    assert "gpu_mem_limit" not in options


@pytest.mark.parametrize("kind", ["cpu", "simulated"])
def test_other_sessions_run_on_the_cpu_alone(kind: str) -> None:
    assert provider_options(DeviceOptions(kind)) == [("CPUExecutionProvider", {})]


def test_threads_are_as_many_as_told_and_do_not_spin() -> None:
    options = session_options(DeviceOptions(threads=3))
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    for pool in ("intra_op", "inter_op"):
        assert options.get_session_config_entry(f"session.{pool}.allow_spinning") == "0"


class Driver:
    """Stands for libcuda.so.1: its two calls and their status."""

    def __init__(self, count: int, init: int = 0, ask: int = 0) -> None:
        self.count, self.init, self.ask = count, init, ask

    def cuInit(self, _flags: int) -> int:  # noqa: N802  its name
        return self.init

    def cuDeviceGetCount(self, into: ctypes._Pointer[ctypes.c_int]) -> int:  # noqa: N802  its name
        ctypes.cast(into, ctypes.POINTER(ctypes.c_int))[0] = self.count
        return self.ask


@pytest.mark.parametrize(
    ("driver", "count"), [(Driver(2), 2), (Driver(2, init=100), 0), (Driver(2, ask=1), 0), (Driver(0), 0)]
)
def test_devices_are_those_that_the_driver_counts(monkeypatch: pytest.MonkeyPatch, driver: Driver, count: int) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: driver)
    assert cuda_devices() == count


def test_without_a_driver_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert cuda_devices() == 0
