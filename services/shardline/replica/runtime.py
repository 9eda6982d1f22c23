"""The only door to ONNX Runtime: sessions, devices, runs that can be terminated.

Options are those of docs/architecture.md (devices): explicit intra-op threads, no spinning, HEURISTIC convolution search,
kSameAsRequested arena. On CUDA every run goes through an I/O binding, so that inputs and outputs are staged once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from shardline.core.datatypes import BF16, BY_ORT, DataType
from shardline.core.errors import ModelFailed, ModelRejected
from shardline.core.fusions import SLOWER_ON_CPU
from shardline.replica.devices import CUDA_PROVIDER, provider_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from shardline.core.models import ModelSpec
    from shardline.replica.devices import DeviceOptions


def available_providers() -> list[str]:
    """The execution providers of the installed ONNX Runtime."""
    return list(ort.get_available_providers())


def load_cuda_libraries() -> None:
    """Load CUDA and cuDNN from the wheels that the [gpu] extra brings, where the system has none; once, before a session."""
    ort.preload_dlls()


def session_options(device: DeviceOptions) -> ort.SessionOptions:
    """Session options for `device`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = device.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


@dataclass(slots=True)
class Run:
    """A handle on one run, so that another thread can end it between two operators."""

    options: ort.RunOptions = field(default_factory=ort.RunOptions)
    terminated: bool = False

    def __post_init__(self) -> None:
        self.options.log_severity_level = 4

    def terminate(self) -> None:
        """Interrupt the run; it raises in the executor's thread, and its rows are dropped."""
        self.terminated = True
        self.options.terminate = True


class Session:
    """A loaded model on one device. `run` may be called by one thread at a time."""

    def __init__(self, path: Path, spec: ModelSpec, device: DeviceOptions) -> None:
        self.device = device
        self.spec = spec
        try:
            self._session = ort.InferenceSession(
                str(path),
                sess_options=session_options(device),
                providers=provider_options(device),
                disabled_optimizers=() if device.kind == "cuda" else SLOWER_ON_CPU,
            )
        except Exception as error:  # ONNX Runtime raises several unrelated classes here
            raise ModelRejected(f"{path}: ONNX Runtime cannot load it: {_first_line(error)}") from error
        if device.kind == "cuda" and CUDA_PROVIDER not in self._session.get_providers():
            raise ModelRejected(f"device: CUDA could not be started for {path}; see the log for ONNX Runtime's reason")
        self._output_names = tuple(output.name for output in self._session.get_outputs())
        self._types: dict[str, DataType] = {
            value.name: BY_ORT[value.type]
            for value in (*self._session.get_inputs(), *self._session.get_outputs())
            if value.type in BY_ORT
        }
        self._plain = device.kind != "cuda" and BF16 not in self._types.values()
        # What fails is raised; ONNX Runtime need not log it as well, least of all for inputs that only probe the model.
        self._quiet = Run().options

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the model's order."""
        return self._output_names

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], run: Run | None = None) -> list[np.ndarray]:
        """Execute once. feeds: [rows, *dims] per input. Returns `outputs` in order.

        Raises ModelFailed with ONNX Runtime's first line where the runtime raised or was terminated.
        """
        started = time.perf_counter()
        options = self._quiet if run is None else run.options
        try:
            if self._plain:
                results: list[np.ndarray] = self._session.run(outputs, feeds, options)
            else:
                results = self._run_bound(feeds, outputs, options)
        except Exception as error:  # the runtime's exceptions have no common base but Exception
            raise ModelFailed(f"model failed: {_first_line(error)}") from error
        if self.device.kind == "simulated":
            self._simulate(feeds, started)
        return results

    def _run_bound(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], options: ort.RunOptions | None
    ) -> list[np.ndarray]:
        """Through an I/O binding: for CUDA, and for BF16, which numpy arrays cannot name."""
        binding = self._session.io_binding()
        on_cuda = self.device.kind == "cuda"
        for name, array in feeds.items():
            datatype = self._types[name]
            if datatype is BF16:
                binding.bind_ortvalue_input(
                    name, ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array), BF16.onnx)
                )
            elif on_cuda and array.dtype != object:
                value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cuda", self.device.index)
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding, options)
        return [
            _to_numpy(value, self._types.get(name)) for name, value in zip(outputs, binding.get_outputs(), strict=True)
        ]

    def _simulate(self, feeds: Mapping[str, np.ndarray], started: float) -> None:
        rows = next(iter(feeds.values())).shape[0] if feeds and self.spec.batched else 1
        left = self.device.alpha_s + self.device.beta_s * rows - (time.perf_counter() - started)
        if left > 0:
            time.sleep(left)


def _to_numpy(value: Any, datatype: DataType | None) -> np.ndarray:
    if datatype is BF16:
        # OrtValue.numpy() knows no bfloat16; DLPack's bytes are the same two per element.
        return _bf16_bits(value)
    array: np.ndarray = value.numpy()
    return array


def _bf16_bits(value: Any) -> np.ndarray:
    import ctypes

    shape = tuple(value.shape())
    count = int(np.prod(shape))
    if not count:
        return np.empty(shape, dtype="<u2")
    return np.array((ctypes.c_uint16 * count).from_address(value.data_ptr()), dtype="<u2").reshape(shape)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:400]
