"""What a supervisor tells its user, and whoever listens (the command line draws it)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from shardline.ops.settings import ClusterSettings


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """The first request to one model, and what is known about the model.

    replicas: of each stage, one number where it is not split. latency_s: as the client saw it; None where the model takes
    no input that we can make up.
    """

    model: str
    version: str
    replicas: tuple[int, ...]
    device: str
    endpoint: str
    answer: str
    latency_s: float | None


class Reporter(Protocol):
    """Listens to a supervisor. Calls come from its event loop and must not block."""

    def progress(self, step: str, done: int, total: int) -> None:
        """A step of the start: `done` of `total`."""

    def ready(self, settings: ClusterSettings, answers: tuple[FirstAnswer, ...]) -> None:
        """Every model answered; the cluster serves."""

    def notice(self, text: str) -> None:
        """Something a user should know: a child was replaced, a model is left out."""

    def line(self, child: str, line: str) -> None:
        """One line that a child wrote."""
