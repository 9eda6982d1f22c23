"""A model that does not fit one process under a memory limit, and does in stages: `python -m examples.too_large`.

The model is a stack of products of 360 MiB with random weights. A replica may map 512 MiB (`--replica-memory`), of which an
empty one takes 280: the whole model is refused when it is loaded. `--stages too_large=auto` cuts it into as few stages as
fit, proves them equal to the whole, and serves them; to a client nothing differs.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import psutil
from onnx import TensorProto
from rich.console import Console

from examples.graph import Graph
from examples.serving import NotServing, free_port, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NAME = "too_large"
WIDTH = 1536
LAYERS = 40
MEMORY = "512Mi"
CONFIG = f'name: "{NAME}"\nmax_batch_size: 4\n'
PATIENCE_S = 600.0
TOLERANCE = 1e-4
DEFAULT_OUT = Path("build") / NAME


def weights(layer: int) -> NDArray[np.float32]:
    """The matrix of one layer, [WIDTH, WIDTH], seeded, of a size that keeps values about as large as they come in."""
    return np.random.default_rng(layer).standard_normal((WIDTH, WIDTH), np.float32) / np.float32(WIDTH**0.5)


def build(repository: Path) -> Path:
    """Write the model, its weights in a file beside it, unless it is there. Returns the model's file."""
    folder = repository / NAME / "1"
    if (folder / "model.onnx").is_file():
        return folder / "model.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    (repository / NAME / "config.pbtxt").write_text(CONFIG)
    graph = Graph(NAME)
    last = graph.input("x", TensorProto.FLOAT, ["batch", WIDTH])
    for layer in range(LAYERS):
        product = graph.op("MatMul", last, graph.constant(f"w{layer}", weights(layer)), name=f"product{layer}")
        last = graph.op("Tanh", product, name="y" if layer == LAYERS - 1 else f"h{layer}")
    graph.output("y", TensorProto.FLOAT, ["batch", WIDTH])
    # The file that vouches for the weights appears last.
    onnx.save_model(graph.model(), str(folder / "part.onnx"), save_as_external_data=True, location="weights.bin")
    return (folder / "part.onnx").rename(folder / "model.onnx")


def expected(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the model answers, computed by numpy."""
    for layer in range(LAYERS):
        x = np.tanh(x @ weights(layer))
    return x


def refusal(repository: Path) -> str:
    """Serve the model whole within the memory; returns what is said when that fails, "" where it does not."""
    command = [sys.executable, "-m", "shardline.cli", "serve", str(repository), "--quiet", "--replicas", "1"]
    command += ["--replica-memory", MEMORY, "--port", str(free_port()), "--metrics-port", "0"]
    done = subprocess.run(  # noqa: S603
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def ask(url: str, x: NDArray[np.float32]) -> NDArray[Any]:
    """One request, by tritonclient."""
    from tritonclient.grpc import InferenceServerClient, InferInput

    with contextlib.closing(InferenceServerClient(url)) as client:
        tensor = InferInput("x", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x)
        answer: NDArray[Any] = client.infer(NAME, [tensor]).as_numpy("y")
    return answer


def stage_memory() -> list[tuple[str, int]]:
    """Each stage's process that this one started, and the memory that it maps, in bytes."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            stage = process.environ().get("SHARDLINE_STAGE", "").rpartition("#")[2]
            if stage and "shardline.replica" in process.cmdline():
                found.append((f"stage {stage}", process.memory_info().data))
    return sorted(found)


def run(out: Path, console: Console) -> int:
    """Build, fail to serve it whole, serve it in stages, compare. Returns the exit status."""
    with console.status("building the model"):
        model = build(out)
    size = sum(file.stat().st_size for file in model.parent.iterdir())
    console.print(f"{model}: {size / 2**20:.0f} MiB; a replica may map {MEMORY}", highlight=False)
    with console.status("serving it whole"):
        said = refusal(out)
    if not said:
        console.print("whole: it was served, so the limit does not bind")
        return 1
    console.print(f"whole: {said}", highlight=False, markup=False, soft_wrap=True)
    x = np.random.default_rng(1).standard_normal((3, WIDTH), np.float32)
    extra = ("--stages", f"{NAME}=auto", "--replica-memory", MEMORY)
    with console.status("cutting it, comparing the stages with the whole, serving them"):
        server = contextlib.ExitStack()
        url = server.enter_context(serve(out, (NAME,), 1, PATIENCE_S, extra))
    with server:
        worst = float(np.max(np.abs(ask(url, x) - expected(x))))
        memory = stage_memory()
    shown = ", ".join(f"{stage} maps {size_bytes / 2**20:.0f} MiB" for stage, size_bytes in memory)
    console.print(f"split: {len(memory)} stages answer; largest difference from numpy {worst:.1e}", highlight=False)
    console.print(f"       {shown}", highlight=False)
    return 0 if len(memory) > 1 and worst <= TOLERANCE else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.too_large", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="the repository (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        return run(options.out, Console())
    except (NotServing, OSError, subprocess.TimeoutExpired) as error:
        print(f"examples.too_large: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
