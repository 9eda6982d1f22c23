"""The chart: what it renders is what stands in snapshots/, and a real API server takes it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.cluster.release import CHART, VALUES, cluster

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
SNAPSHOTS = VALUES.parent.parent / "ci/snapshots"
EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))


def rendered(values: Path | None) -> str:
    """The templates, without what differs each time: the generated password."""
    given = ["-f", str(values)] if values else []
    text = cluster("helm", "template", "r", str(CHART), "-n", "ns", *given)
    return re.sub(r"^(  password: ).*$", r"\1R0VORVJBVEVE", text, flags=re.MULTILINE)


def named(values: Path | None) -> str:
    return values.stem if values else "default-values"


@pytest.mark.parametrize("values", [None, *(path for path in EXAMPLES if path != VALUES)], ids=named)
def test_the_chart_renders_what_the_snapshot_says(nodes: None, values: Path | None) -> None:
    """SNAPSHOTS=write make test-cluster ARGS='-k snapshot' writes them anew; the difference is then part of the change."""
    snapshot = SNAPSHOTS / f"{named(values)}.yaml"
    text = rendered(values)
    if os.environ.get("SNAPSHOTS") == "write":
        snapshot.parent.mkdir(exist_ok=True)
        snapshot.write_text(text)
    assert text == snapshot.read_text()


@pytest.mark.parametrize("values", [None, *EXAMPLES], ids=named)
def test_the_chart_lints_and_a_real_api_server_takes_all_it_renders(nodes: None, values: Path | None) -> None:
    cluster("helm", "lint", "--strict", str(CHART), *(["-f", str(values)] if values else []))
    text = re.sub("namespace: ns$", "namespace: default", rendered(values), flags=re.MULTILINE)
    answer = cluster("kubectl", "apply", "--dry-run=server", "--validate=strict", "-f", "-", text=text)
    assert answer.count("(server dry run)") > 10


@pytest.mark.parametrize(
    "wrong",
    ["router.replica=3", "router.front=apache", "redis.bundled=false", "log.level=loud", "replicas.cache.bytes=-1"],
)
def test_a_wrong_value_is_refused(nodes: None, wrong: str) -> None:
    with pytest.raises(AssertionError, match="values don't meet the specifications"):
        cluster("helm", "template", "r", str(CHART), "--set", wrong)
