"""A split model: its plan is sought, kept and used; what served before goes on meanwhile."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from shardline.controller import contract, manifests
from shardline.controller.actions import Action, Apply, Delete, SetStatus, StorePlan, Tell
from shardline.controller.bundle import Bundle
from shardline.controller.cut import JobState, plan_key, quantity, take_form
from shardline.controller.observed import Observed, read_cut, read_job
from shardline.controller.plan import plan
from shardline.controller.planjob import config_map, job
from tests.unit.controller.objects import DEFAULTS, NOW, cut, model, observed, planned, pod

if TYPE_CHECKING:
    from shardline.controller.spec import Manifest, ModelObject

RESULT = json.dumps({"version": 4, "digest": "abc"})


def acts(of: ModelObject, there: Observed) -> list[Action]:
    return [action for action in plan(DEFAULTS, of, there, NOW) if not isinstance(action, SetStatus | Tell)]


def conditions(of: ModelObject, there: Observed) -> dict[str, Manifest]:
    status = next(action.status for action in plan(DEFAULTS, of, there, NOW) if isinstance(action, SetStatus))
    return {condition["type"]: condition for condition in status["conditions"]}


def with_job(of: ModelObject, state: JobState, message: str = "", there: Observed | None = None) -> Observed:
    found = planned(of, state, message)
    return replace(there or Observed(), jobs={found.key: found})


def with_cut(of: ModelObject, stages: int = 2, there: Observed | None = None) -> Observed:
    found = cut(of, stages)
    return replace(there or Observed(), cuts={found.key: found})


def serving(of: ModelObject) -> Observed:
    """As it is when the whole model is served."""
    revision = manifests.revision_of(DEFAULTS, of)
    deployments = [manifests.deployment(DEFAULTS, of, 0, revision, 1)]
    return observed(deployments, [pod(revision)], [manifests.service(DEFAULTS, of, 0)])


def test_a_split_model_gets_a_job_first_and_says_that_it_is_planned() -> None:
    wanted = model(stages=2)
    (action,) = acts(wanted, Observed())
    assert isinstance(action, Apply)
    assert action.manifest["kind"] == "Job"
    assert conditions(wanted, Observed())["Ready"]["reason"] == "Planning"
    assert acts(wanted, with_job(wanted, JobState.RUNNING)) == []


def test_a_finished_jobs_plan_is_kept_and_a_result_that_cannot_be_read_is_asked_for_again() -> None:
    wanted = model(stages=2)
    key = plan_key(DEFAULTS, wanted)
    assert acts(wanted, with_job(wanted, JobState.DONE, RESULT)) == [StorePlan(f"digits-plan-{key}", key, 4, "abc")]
    assert acts(wanted, with_job(wanted, JobState.DONE, "?")) == [Delete("Job", f"digits-plan-{key}")]


def test_a_model_that_cannot_be_cut_says_why_and_is_not_tried_again() -> None:
    wanted = model(stages=9)
    failed = with_job(wanted, JobState.FAILED, "at most 4 stages")
    assert acts(wanted, failed) == []
    found = conditions(wanted, failed)
    assert found["Ready"]["reason"] == "PlanFailed"
    assert "at most 4 stages" in found["Ready"]["message"]
    assert found["Progressing"]["reason"] == "Stalled"


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.FAILED])
def test_what_served_before_goes_on_while_there_is_no_plan(state: JobState) -> None:
    before, after = model(), model(stages=2)
    there = with_job(after, state, "no", serving(before))
    assert acts(after, there) == []
    assert conditions(after, there)["Ready"]["status"] == "True"


def test_each_stage_has_its_deployment_with_its_own_number_of_pods_and_knows_its_place() -> None:
    wanted = model(stages=2, stageReplicas=[1, 3])
    applied = [a.manifest for a in acts(wanted, with_cut(wanted)) if isinstance(a, Apply)]
    deployments = [item for item in applied if item["kind"] == "Deployment"]
    assert [item["spec"]["replicas"] for item in deployments] == [1, 3]
    for index, item in enumerate(deployments):
        container = item["spec"]["template"]["spec"]["containers"][0]
        told = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert told[contract.ENV_STAGE_INDEX] == str(index)
        assert told[contract.ENV_VERSION] == "1"
        assert container["command"] == list(contract.FETCH_COMMAND)
    assert len([item for item in applied if item["kind"] == "Service"]) == 2


def test_another_plan_means_other_pods() -> None:
    wanted = model(stages=2)
    first, second = (replace(wanted, replicas=(1, 1), cut=cut(wanted, digest=digest)) for digest in "ab")
    assert manifests.revision_of(DEFAULTS, first) != manifests.revision_of(DEFAULTS, second)


def test_numbers_for_another_count_of_stages_are_told_and_nothing_is_done() -> None:
    wanted = model(stages="auto", stageReplicas=[1, 2, 3])
    there = with_cut(wanted, stages=2)
    assert acts(wanted, there) == []
    assert "has 3 numbers, the plan has 2 stages" in conditions(wanted, there)["Ready"]["message"]


def test_auto_needs_to_know_the_memory_and_may_come_out_whole() -> None:
    wanted = model(stages="auto", replicas=2)
    unbounded = {**DEFAULTS, "resources": {}}
    _, missing, actions = take_form(unbounded, wanted, Observed())
    assert (missing.failed if missing else None, actions) == (True, [])
    told = {
        entry["name"]: entry.get("value")
        for entry in job(DEFAULTS, wanted, "k", 5)["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert (told[contract.ENV_STAGES], told[contract.ENV_MEMORY]) == ("0", "5")
    formed, _, _ = take_form(DEFAULTS, wanted, with_cut(wanted, stages=1))
    assert (formed.replicas, formed.cut, formed.version) == ((2,), None, 1)


def test_a_plan_depends_on_all_that_it_was_asked_for_and_on_nothing_else() -> None:
    keys = [
        plan_key(DEFAULTS, model(**spec))
        for spec in (
            {"stages": 2},
            {"stages": 3},
            {"stages": "auto"},
            {"stages": "auto", "resources": {"limits": {"memory": "1Gi"}}},
            {"stages": 2, "version": 2},
            {"stages": 2, "model": "other"},
            {"stages": 2, "planning": {"estimate": True}},
        )
    ]
    assert len(set(keys)) == len(keys)
    same: list[dict[str, Any]] = [
        {"replicas": 5},
        {"drainSeconds": 3},
        {"resources": {"limits": {"memory": "1Gi"}}},
        {"device": "cuda"},
    ]
    assert {plan_key(DEFAULTS, model(stages=2, **spec)) for spec in same} == {keys[0]}


def test_plans_and_jobs_that_nobody_needs_any_more_are_removed_when_all_is_settled() -> None:
    before, after = model(stages=2), model()
    old = cut(before)
    there = replace(serving(after), cuts={old.key: old}, jobs={old.key: planned(before, JobState.DONE)})
    assert set(acts(after, there)) == {Delete("Job", old.name), Delete("ConfigMap", old.name)}
    rolling = replace(serving(model(drainSeconds=9)), cuts={old.key: old})
    assert Delete("ConfigMap", old.name) not in acts(after, rolling)


def test_a_kept_plan_reads_back_as_what_it_was() -> None:
    wanted = model(stages=2)
    bundle = Bundle("digits", 4, plan="{}", written="{}", shell=b"\0\1", suggested=(1, 2), summary="two stages")
    body = bundle.pack()
    assert Bundle.unpack(body) == bundle
    kept = read_cut(config_map(DEFAULTS, wanted, "k", 4, bundle, body))
    assert (kept.version, kept.stages, kept.suggested, kept.text) == (4, 2, (1, 2), "two stages")


@pytest.mark.parametrize(
    ("status", "ended", "state", "message"),
    [
        ({}, None, JobState.RUNNING, ""),
        ({"type": "Complete"}, {"exitCode": 0, "message": RESULT}, JobState.DONE, RESULT),
        ({"type": "Failed"}, {"exitCode": 3, "message": '{"reason": "at most 4"}'}, JobState.FAILED, "at most 4"),
        ({"type": "Failed"}, {"exitCode": 137, "reason": "OOMKilled"}, JobState.FAILED, "more memory than its limit"),
        ({"type": "Failed", "message": "deadline"}, None, JobState.FAILED, "deadline"),
    ],
)
def test_how_a_job_ended_is_what_its_pod_said(
    status: dict[str, Any], ended: dict[str, Any] | None, state: JobState, message: str
) -> None:
    item = job(DEFAULTS, model(stages=2), "k", 0)
    item["status"] = {"conditions": [{**status, "status": "True"}] if status else []}
    labels = {"batch.kubernetes.io/job-name": item["metadata"]["name"]}
    containers = [{"state": {"terminated": ended}}] if ended else [{"state": {"running": {}}}]
    found = read_job(item, [{"metadata": {"labels": labels}, "status": {"containerStatuses": containers}}])
    assert found.state is state
    assert message in found.message


@pytest.mark.parametrize(
    ("text", "number"), [("1.5Gi", 1.5 * 2**30), ("200m", 0.2), (3, 3.0), ("2k", 2000.0), ("0", 0)]
)
def test_quantities_are_read_as_kubernetes_reads_them(text: str | int, number: float) -> None:
    assert quantity(text) == number


def test_a_stage_that_is_not_wanted_any_more_keeps_its_service_while_it_has_pods() -> None:
    split, whole = model(stages=2), model()
    formed = replace(split, replicas=(1, 1), cut=cut(split))
    revision = manifests.revision_of(DEFAULTS, formed)
    old = [manifests.deployment(DEFAULTS, formed, stage, revision, 1) for stage in range(2)]
    services = [manifests.service(DEFAULTS, formed, stage) for stage in range(2)]
    there = observed(old, [pod(revision, stage=0), pod(revision, stage=1)], services)
    assert not [action for action in acts(whole, there) if isinstance(action, Delete)]
    gone = serving(whole)
    gone = replace(gone, services={item["metadata"]["name"]: item for item in services})
    assert Delete("Service", "digits-s1") in acts(whole, gone)
