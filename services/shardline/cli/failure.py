"""How a command ends when it cannot do what was asked: one line, and an exit code."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_FAILED = 1
"""The command was understood and failed."""
EXIT_USAGE = 2
"""The command line was wrong."""


class Failure(Exception):
    """One line that says why and what to do next. code: EXIT_FAILED or EXIT_USAGE."""

    def __init__(self, message: str, code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@contextmanager
def one_line() -> Iterator[None]:
    """Turn a Failure into its line on standard error and its exit code."""
    try:
        yield
    except Failure as failure:
        sys.stderr.write(f"shardline: {' '.join(failure.message.split())}\n")
        raise typer.Exit(failure.code) from None
    except BrokenPipeError:
        # The reader of our output (head, less) went away: nothing is wrong, and there is nobody to tell.
        sys.stdout = None
        raise typer.Exit(0) from None
