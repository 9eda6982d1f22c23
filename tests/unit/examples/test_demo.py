"""What the demo computes and prints, without a server."""

from __future__ import annotations

import asyncio
import doctest
import io
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from examples import demo, demo_view, inputs, serving


def printed(*shown: Any) -> str:
    console = Console(file=io.StringIO(), width=80)
    for each in shown:
        console.print(each)
    return console.file.getvalue()  # type: ignore[attr-defined]


class Answer:
    """One answer as tritonclient gives it."""

    def __init__(self, label: np.ndarray) -> None:
        self._label = label

    def get_response(self) -> Any:
        output = type("Output", (), {"name": "label"})
        return type("Response", (), {"outputs": [output]})

    def as_numpy(self, name: str) -> np.ndarray:
        assert name == "label"
        return self._label


class Echo:
    """A client that answers with the first pixel of each image, and counts what is in flight."""

    def __init__(self) -> None:
        self.in_flight = self.most_in_flight = 0

    async def infer(self, model: str, tensors: list[Any], client_timeout: float) -> Answer:
        assert (model, client_timeout) == ("digits", demo.DEADLINE_S)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        pixels = np.frombuffer(tensors[0]._get_content(), np.float32).reshape(tensors[0].shape())
        return Answer(pixels[:, 0])


async def test_answers_come_in_the_order_of_the_rows_whatever_is_in_flight() -> None:
    feeds = [{"image": np.full((rows, 64), index, np.float32)} for index, rows in enumerate((2, 1, 3, 1, 1))]
    client = Echo()
    timed = await demo.ask(client, "digits", feeds, demo.Load(rows=3, in_flight=2))
    assert timed.outputs["label"].tolist() == [0, 0, 1, 2, 2, 2, 3, 4]
    assert len(timed.latencies_s) == 5
    assert client.most_in_flight == 2


def test_the_doctests_of_the_view_hold() -> None:
    results = doctest.testmod(demo_view)
    assert (results.failed, results.attempted > 0) == (0, True)


def test_a_wrong_answer_is_shown_with_the_truth() -> None:
    digits = inputs.held_out_digits()
    labels = digits.labels.copy()
    labels[7] = (labels[7] + 1) % 10
    text = printed(demo_view.digits_picture(digits, labels, np.full((len(labels), 10), 0.5)))
    assert f"{labels[7]} (50%), is {digits.labels[7]}" in text
    assert text.count("(50%)") == demo_view.SHOWN_DIGITS


def test_the_ranking_shows_the_nearest_first() -> None:
    text = printed(demo_view.ranking("which?", np.array([0.1, 0.9, -0.2, 0.5]), ("a", "b", "c", "d")))
    lines = [line.split()[-1] for line in text.splitlines() if line.strip()]
    assert lines == ["which?", "b", "d", "a"]


def test_a_server_that_is_not_there_gives_one_line_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--url", f"127.0.0.1:{serving.free_port()}"]) == 1
    assert capsys.readouterr().err.startswith("examples.demo: ")


def test_a_server_that_ends_at_once_is_reported_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(_: list[str], **keywords: Any) -> subprocess.Popen[bytes]:
        popen: subprocess.Popen[bytes] = real([sys.executable, "-c", "print('no models here'); exit(3)"], **keywords)
        started.append(popen)
        return popen

    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    with (
        pytest.raises(serving.NotServing, match=r"(?s)status 3.*no models here"),
        serving.serve(tmp_path, ["x"], 1, 30),
    ):
        pass
    assert [child.returncode for child in started] == [3]


def test_a_server_is_ended_when_the_block_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    real = subprocess.Popen
    started: list[subprocess.Popen[bytes]] = []

    def start(_: list[str], **keywords: Any) -> subprocess.Popen[bytes]:
        popen: subprocess.Popen[bytes] = real(
            [sys.executable, "-c", "input()"], **{**keywords, "stdin": subprocess.PIPE}
        )
        started.append(popen)
        return popen

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(serving, "_ready", lambda *_: True)
    with pytest.raises(ZeroDivisionError), serving.serve(tmp_path, ["x"], 1, 30):
        raise ZeroDivisionError
    assert [child.returncode for child in started] == [-15]
    for child in started:
        assert child.stdin
        child.stdin.close()


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", serving.free_port())) as listener:
        assert listener.getsockname()[1] > 0
