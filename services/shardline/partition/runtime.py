"""The one door to ONNX Runtime of this package: run a model file, time it, profile its nodes.

Arrays are numpy; BF16 tensors are uint16 bit patterns, as everywhere in this project.
"""

from __future__ import annotations

import ctypes
import json
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnxruntime as ort

from shardline.core.datatypes import BF16, BY_ORT
from shardline.core.errors import ModelFailed, ModelRejected
from shardline.core.fusions import SLOWER_ON_CPU

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Level = Literal["served", "plain"]
"""served: as the replica runs it. plain: node by node, as the file says."""

_LEVELS = {
    "served": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "plain": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_SUFFIX = "_kernel_time"
_TURN_S = 0.1
_TURNS, _ENOUGH = 3, 60


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """One node of a profiled run. ms: its kernel. outputs: (data type as ONNX Runtime names it, shape) each."""

    ms: float
    outputs: tuple[tuple[str, tuple[int, ...]], ...]


class Model:
    """A model file, loaded.

    threads: intra-op threads; none of them spins, as in a replica. Raises ModelRejected where the file cannot be loaded.
    """

    def __init__(
        self, path: Path, *, level: Level = "served", threads: int = 1, profile_to: Path | None = None
    ) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = _LEVELS[level]
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._threads = threads
        options.log_severity_level = 4  # what fails is raised, too
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if profile_to is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile_to)
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_ON_CPU
            )
        except Exception as error:
            raise ModelRejected(f"ONNX Runtime cannot load {path}: {error}") from error
        self.inputs = {item.name: item.type for item in self._session.get_inputs()}
        self.outputs = {item.name: item.type for item in self._session.get_outputs()}

    def run(self, feeds: Mapping[str, Array]) -> Arrays:
        """All outputs for the inputs given; names that the model does not take are left out.

        Raises ModelFailed where the runtime does.
        """
        mine = {name: feeds[name] for name in self.inputs if name in feeds}
        try:
            if BF16.ort in (*self.inputs.values(), *self.outputs.values()):
                return self._run_as_ort_values(mine)
            return dict(zip(self.outputs, self._session.run(list(self.outputs), mine), strict=True))
        except Exception as error:
            raise ModelFailed(f"the model failed on sample input: {error}") from error

    def _run_as_ort_values(self, feeds: Mapping[str, Array]) -> Arrays:
        values = {name: _to_ort(array, self.inputs[name]) for name, array in feeds.items()}
        results = self._session.run_with_ort_values(list(self.outputs), values)
        return {name: _from_ort(value) for name, value in zip(self.outputs, results, strict=True)}

    def time_ms(self, feeds: Mapping[str, Array], *, seconds: float = 0.4, least: int = 5) -> float:
        """Milliseconds of one run: of repeated ones, the slowest of the fastest tenth. By the clock of `timed`."""
        self.run(feeds)
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while len(taken) < least or time.perf_counter() < end:
            taken.append(self.timed(feeds))
        return sorted(taken)[len(taken) // 10]

    def timed(self, feeds: Mapping[str, Array]) -> float:
        """Milliseconds of this run.

        With one thread, of processor time: the run is on the calling thread, and what else the machine does does not count.
        """
        clock = time.thread_time if self._threads == 1 else time.perf_counter
        start = clock()
        self.run(feeds)
        return (clock() - start) * 1e3

    def end_profile(self) -> dict[str, list[NodeProfile]]:
        """Profiles by node name, one entry per run. The session was made with `profile_to`."""
        from pathlib import Path

        file = Path(self._session.end_profiling())
        events = json.loads(file.read_text())
        file.unlink()
        found: dict[str, list[NodeProfile]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
                profile = NodeProfile(event["dur"] / 1e3, _shapes(event["args"].get("output_type_shape", [])))
                found.setdefault(event["name"].removesuffix(_SUFFIX), []).append(profile)
        return found


def time_in_turn(models: Sequence[tuple[Model, Arrays]], *, seconds: float, least: int = 5) -> list[float]:
    """Median milliseconds of each model's run on its values: `least` runs or more, for `seconds` each unless _ENOUGH came sooner.

    They take turns of _TURN_S, so that what slows the machine for a while slows all; the first run of a turn warms the caches.
    """
    taken: list[list[float]] = [[] for _ in models]
    turns = 0
    while models:
        for (model, values), times in zip(models, taken, strict=True):
            model.run(values)
            end = time.perf_counter() + _TURN_S
            times.append(model.timed(values))
            while time.perf_counter() < end:
                times.append(model.timed(values))
        turns += 1
        fewest = min(map(len, taken))
        if fewest >= least and (turns * _TURN_S >= seconds or (turns >= _TURNS and fewest >= _ENOUGH)):
            break
    return [median(times) for times in taken]


def _shapes(entries: Sequence[Mapping[str, Sequence[int]]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((f"tensor({kind})", tuple(shape)) for entry in entries for kind, shape in entry.items())


def _to_ort(array: Array, kind: str) -> ort.OrtValue:
    if kind == BF16.ort:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array), BF16.onnx)
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def _from_ort(value: ort.OrtValue) -> Array:
    if value.data_type() != BF16.ort:
        return np.asarray(value.numpy())
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(data, BF16.numpy).reshape(value.shape())


def onnx_type_of(array: Array, kind: str) -> int:
    """TensorProto.DataType of an output, by ONNX Runtime's name of its type; 0 for what the protocol has not."""
    return BY_ORT[kind].onnx if kind in BY_ORT and isinstance(array, np.ndarray) else 0
