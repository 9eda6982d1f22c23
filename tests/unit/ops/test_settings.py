"""Settings: the environment, overrides, one clear line for a bad value, and a reference page that is up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shardline.ops import settings
from shardline.ops.settings import (
    ClusterSettings,
    ProcessSettings,
    ReplicaSettings,
    RouterSettings,
    SettingsError,
    load,
)
from tools import generate_configuration

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(settings.PREFIX):
            monkeypatch.delenv(name)


def test_an_override_goes_before_the_environment_and_the_environment_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load(RouterSettings).port == 8001
    monkeypatch.setenv("SHARDLINE_PORT", "9001")
    assert load(RouterSettings).port == 9001
    assert load(RouterSettings, port=9002).port == 9002
    assert load(RouterSettings, port=None).port == 9001


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (RouterSettings, {"port": 70000}, ["--port=70000", "65535"]),
        (RouterSettings, {"retry_ratio": -1.0}, ["--retry-ratio=-1.0", "greater than or equal to 0"]),
        (RouterSettings, {"front": "apache"}, ["--front=apache", "grpcio", "native"]),
        (ReplicaSettings, {}, ["SHARDLINE_REPOSITORY is not set"]),
        (ReplicaSettings, {"repository": "m", "lease_s": 1.0}, ["lease_s=1.0", "heartbeat_s=1.0"]),
        (ReplicaSettings, {"repository": "m", "report_s": float("nan")}, ["--report-s=nan"]),
        (
            ReplicaSettings,
            {"repository": "m", "models": "a", "stage": "/plans/a"},
            ["stage=/plans/a", "the stage's number"],
        ),
        (
            ReplicaSettings,
            {"repository": "m", "stage": "/plans/a#0"},
            ["stage=/plans/a#0", "exactly one model", "not 0"],
        ),
        (ProcessSettings, {"run_dir": "/tmp/" + "x" * 80}, ["--run-dir=/tmp/xxx", "70 bytes"]),
        (ProcessSettings, {"cluster": "a b"}, ["--cluster=a b"]),
        (ClusterSettings, {"repository": "m", "colour": 1}, ["no setting colour"]),
    ],
)
def test_a_bad_value_gives_one_line_that_names_it(kind: Any, given: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(kind, **given)
    message = str(caught.value)
    assert "\n" not in message
    for part in said:
        assert part in message


def test_a_bad_variable_is_named_as_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDLINE_METRICS_PORT", "eighty")
    with pytest.raises(SettingsError, match=r"^SHARDLINE_METRICS_PORT=eighty: input should be a valid integer"):
        load(ProcessSettings)


def test_a_redis_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDLINE_REDIS_URL", "http://:hunter2@redis")
    with pytest.raises(SettingsError) as caught:
        load(ProcessSettings)
    assert "hunter2" not in str(caught.value)
    good = load(ProcessSettings, redis_url="redis://:hunter2@redis")
    assert "hunter2" not in repr(good)


def test_a_child_loads_the_settings_that_its_parent_hands_it(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = load(
        ReplicaSettings, repository="/m", models="digits, minilm", heartbeat_s=0.5, accounting=False, drain_s=3
    )
    environment = settings.to_environment(parent)
    assert "SHARDLINE_LEASE_S" not in environment
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    child = load(ReplicaSettings)
    assert child == parent
    assert child.models == ("digits", "minilm")


def test_every_setting_says_what_it_means() -> None:
    for kind in generate_configuration.TITLES:
        for name, field in kind.model_fields.items():
            assert field.description, f"{kind.__name__}.{name}"
            assert field.description.endswith("."), f"{kind.__name__}.{name}"


def test_the_configuration_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == generate_configuration.render(), "run: make docs"
