"""Which device a replica runs on, and what ONNX Runtime is told about it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardline.core.errors import ModelRejected

if TYPE_CHECKING:
    from collections.abc import Sequence

CUDA_PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """Where sessions run.

    kind: cpu, cuda or simulated. index: of the CUDA device. threads: intra-op threads on the CPU.
    memory_limit_bytes: of the CUDA arena, 0 for none. alpha_s, beta_s: time of a simulated batch, alpha + beta*b.
    """

    kind: str = "cpu"
    index: int = 0
    threads: int = 1
    memory_limit_bytes: int = 0
    alpha_s: float = 0.0
    beta_s: float = 0.0

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.kind == "cuda" else self.kind


def cuda_devices() -> int:
    """CUDA devices that the driver offers this process (CUDA_VISIBLE_DEVICES counts); 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def choose_device(asked: str, providers: Sequence[str], devices: int, index: int = 0) -> str:
    """The kind of device for `auto`, `cpu`, `cuda` or `simulated`.

    providers: of the installed ONNX Runtime. devices: CUDA devices that there are. index: the wanted one.
    Raises ModelRejected where CUDA is asked for and cannot be had, or has no device of that index.
    """
    usable = CUDA_PROVIDER in providers and devices > 0
    if asked == "auto":
        asked = "cuda" if usable else "cpu"
    if asked != "cuda":
        return asked
    if CUDA_PROVIDER not in providers:
        raise ModelRejected(
            "device: cuda was asked for, but this ONNX Runtime offers only "
            f"{', '.join(providers)}; install the [gpu] extra (onnxruntime-gpu) instead of [cpu]"
        )
    if not devices:
        raise ModelRejected(
            "device: cuda was asked for, but no NVIDIA driver offers this process a device; see nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or ask for cpu"
        )
    if index >= devices:
        raise ModelRejected(f"device_index: {index}, expected less than {devices}, the number of CUDA devices here")
    return asked


def provider_options(device: DeviceOptions) -> list[tuple[str, dict[str, str]]]:
    """Execution providers with their options for `device`, most wanted first."""
    cpu: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    if device.kind != "cuda":
        return [cpu]
    cuda = {
        "device_id": str(device.index),
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_use_max_workspace": "1",
        "do_copy_in_default_stream": "1",
    }
    if device.memory_limit_bytes:
        cuda["gpu_mem_limit"] = str(device.memory_limit_bytes)
    return [(CUDA_PROVIDER, cuda), cpu]
