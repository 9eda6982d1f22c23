"""Build the example models into a model repository: `python -m examples.build --out build/models`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from examples.catalog import EXAMPLES, Example

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = "1"
STAMP = "# built from "
"""config.pbtxt begins with it and the digest of what it was built from. It is written last, so it vouches for both."""

DEFAULT_OUT = Path("build/models")


def model_path(out: Path, name: str) -> Path:
    """Where a model's graph lies in a repository."""
    return out / name / VERSION / "model.onnx"


def is_current(example: Example, out: Path) -> bool:
    """Whether the repository holds this example as this source tree would build it."""
    try:
        first_line = (out / example.name / "config.pbtxt").read_text().partition("\n")[0]
    except FileNotFoundError:
        return False
    return first_line == STAMP + example.digest() and model_path(out, example.name).is_file()


def write(example: Example, out: Path) -> None:
    """Build an example, check it, and put it into the repository. Each file appears whole or not at all."""
    from examples.check import check

    data = example.build().SerializeToString()
    check(example.name, data)
    _replace(model_path(out, example.name), data)
    _replace(out / example.name / "config.pbtxt", f"{STAMP}{example.digest()}\n{example.config()}".encode())


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def build(out: Path, names: Sequence[str] = (), *, force: bool = False, console: Console | None = None) -> list[str]:
    """Bring a repository up to date and return the names of what had to be built.

    names: which examples, all where empty. force: build also what is current.
    Raises ModuleNotFoundError where a package that a builder reads is missing, CheckFailed for a model that answers
    wrongly, OSError where the folder cannot be written.
    """
    chosen = [EXAMPLES[name] for name in names or EXAMPLES]
    stale = [example for example in chosen if force or not is_current(example, out)]
    if not stale:
        return []
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as progress:
        task = progress.add_task("building models", total=len(stale))
        for example in stale:
            progress.update(task, description=f"building {example.name}")
            write(example, out)
            progress.advance(task)
    return [example.name for example in stale]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.list:
        _print_list(options.out)
        return 0
    try:
        built = build(options.out, options.only, force=options.force)
    except (ModuleNotFoundError, OSError, ValueError) as error:
        print(f"examples.build: {error}", file=sys.stderr)
        return 1
    for name in options.only or EXAMPLES:
        print(f"{'built  ' if name in built else 'current'}  {model_path(options.out, name)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.build",
        description="Build the example models into a model repository. What is up to date is left as it is.",
        epilog="Then serve them: shardline serve build/models",
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="the repository (%(default)s)")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(EXAMPLES),
        default=[],
        metavar="NAME",
        help=f"build just this model; may be given again ({', '.join(EXAMPLES)})",
    )
    parser.add_argument("--force", action="store_true", help="build also what is up to date")
    parser.add_argument("--list", action="store_true", help="say what there is and whether it is built, then stop")
    return parser


def _print_list(out: Path) -> None:
    width = max(len(name) for name in EXAMPLES)
    for example in EXAMPLES.values():
        state = "built" if is_current(example, out) else "-"
        print(f"{example.name:<{width}}  {state:<5}  {example.about}")


if __name__ == "__main__":
    sys.exit(main())
