"""How many users a scenario wants, and what a run of Locust is called with."""

import csv
from pathlib import Path

import pytest

from loadtests.run import failed, figures, locust_command, parse
from loadtests.scenarios import SCENARIOS, users_at


def test_steady_keeps_all_users_from_the_start() -> None:
    assert {users_at("steady", t, 20, 60) for t in (0, 1, 30, 59.9)} == {20}


def test_a_ramp_grows_to_all_users_by_two_thirds_and_never_falls() -> None:
    wanted = [users_at("ramp", t, 20, 60) or 0 for t in range(60)]
    assert wanted[0] == 1
    assert wanted == sorted(wanted)
    assert wanted[40:] == [20] * 20


def test_a_spike_is_the_middle_third() -> None:
    assert [users_at("spike", t, 20, 60) for t in (0, 19, 21, 39, 41, 59)] == [5, 5, 20, 20, 5, 5]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_starts_with_a_user_and_ends_in_time(scenario: str) -> None:
    assert (users_at(scenario, 0, 1, 10) or 0) >= 1  # type: ignore[arg-type]
    assert users_at(scenario, 10, 1, 10) is None  # type: ignore[arg-type]


def test_the_command_names_scenario_users_and_address(tmp_path: Path) -> None:
    options = parse(["--scenario", "spike", "--users", "7", "--models", "digits,resnet50", "--out", str(tmp_path)])
    command = locust_command(options, "127.0.0.1:9")
    assert command[command.index("--scenario") + 1] == "spike"
    assert command[command.index("--peak-users") + 1] == "7"
    assert command[command.index("--url") + 1] == "127.0.0.1:9"
    assert command[command.index("--html") + 1].endswith("spike.html")
    assert command[-2:] == ["DigitsUser", "Resnet50User"]


def rows(requests: int, failures: int) -> list[dict[str, str]]:
    return [{"Name": "Aggregated", "Request Count": str(requests), "Failure Count": str(failures)}]


def test_a_run_fails_when_a_request_failed_or_none_was_sent() -> None:
    assert not failed(rows(10, 0))
    assert failed(rows(10, 1))
    assert failed(rows(0, 0))
    assert failed([])


def test_figures_come_from_the_statistics_file_and_a_missing_one_has_none(tmp_path: Path) -> None:
    stats = tmp_path / "steady_stats.csv"
    assert figures(stats) == []
    with stats.open("w", newline="") as sink:
        writer = csv.DictWriter(sink, ["Name", "Request Count", "Failure Count"])
        writer.writeheader()
        writer.writerows(rows(3, 0))
    assert figures(stats) == rows(3, 0)
