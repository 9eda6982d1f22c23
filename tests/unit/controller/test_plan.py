"""plan(desired, observed) -> actions: values in, values out."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from shardline.controller import contract, manifests
from shardline.controller.actions import Action, Apply, Delete, Scale, SetStatus, Tell
from shardline.controller.observed import Observed
from shardline.controller.plan import holds, plan
from tests.unit.controller.objects import DEFAULTS, NOW, model, observed, pod

if TYPE_CHECKING:
    from shardline.controller.spec import Manifest, ModelObject


def deployment(of: ModelObject, replicas: int = 1) -> Manifest:
    return manifests.deployment(DEFAULTS, of, 0, manifests.revision_of(DEFAULTS, of), replicas)


def settled(of: ModelObject, replicas: int = 1) -> Observed:
    revision = manifests.revision_of(DEFAULTS, of)
    pods = [pod(revision) for _ in range(replicas)]
    return observed([deployment(of, replicas)], pods, [manifests.service(DEFAULTS, of, 0)])


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in actions if not isinstance(action, SetStatus | Tell)]


def status(actions: list[Action]) -> Manifest:
    return next(action.status for action in actions if isinstance(action, SetStatus))


def test_a_new_model_gets_a_service_and_a_deployment() -> None:
    actions = plan(DEFAULTS, model(), Observed(), NOW)
    assert kinds(actions) == ["Apply", "Apply"]
    assert status(actions)["summary"] == "0/1"


def test_nothing_is_done_when_all_is_as_it_should_be() -> None:
    wanted = model()
    first = plan(DEFAULTS, wanted, settled(wanted), NOW)
    assert kinds(first) == []
    again = plan(DEFAULTS, model(status=status(first)), settled(wanted), "2031-01-01T00:00:00Z")
    assert again == []


def test_drift_is_undone() -> None:
    wanted = model()
    now = settled(wanted)
    drifted = copy.deepcopy(now.pools[0].manifest)
    drifted["spec"]["template"]["spec"]["containers"][0]["image"] = "somebody:else"
    actions = plan(DEFAULTS, wanted, observed([drifted], list(now.pods), list(now.services.values())), NOW)
    assert kinds(actions) == ["Apply"]


def test_a_change_starts_new_pods_beside_the_old_ones() -> None:
    before, after = model(replicas=2), model(replicas=2, drainSeconds=7)
    actions = plan(DEFAULTS, after, settled(before, 2), NOW)
    applied = [action.manifest for action in actions if isinstance(action, Apply)]
    assert [item["spec"]["replicas"] for item in applied] == [2]
    assert not [action for action in actions if isinstance(action, Scale | Delete)]


def test_old_pods_drain_when_the_new_ones_are_ready_and_then_their_deployment_goes() -> None:
    before, after = model(), model(drainSeconds=7)
    old, new = deployment(before), deployment(after)
    services = [manifests.service(DEFAULTS, after, 0)]
    old_revision, new_revision = (item["metadata"]["labels"][contract.LABEL_REVISION] for item in (old, new))
    both = observed([old, new], [pod(old_revision), pod(new_revision)], services)
    assert Scale(old["metadata"]["name"], 0) in plan(DEFAULTS, after, both, NOW)
    drained = observed([deployment(before, 0), new], [pod(new_revision)], services)
    assert Delete("Deployment", old["metadata"]["name"]) in plan(DEFAULTS, after, drained, NOW)


def test_old_pods_stay_while_routers_do_not_know_the_new_ones() -> None:
    """Redis may be away: kubelet's word that a pod is ready leads no call to it."""
    before, after = model(), model(drainSeconds=7)
    old, new = deployment(before), deployment(after)
    revisions = [item["metadata"]["labels"][contract.LABEL_REVISION] for item in (old, new)]
    pods = [pod(revisions[0]), pod(revisions[1], known=False)]
    assert kinds(plan(DEFAULTS, after, observed([old, new], pods, [manifests.service(DEFAULTS, after, 0)]), NOW)) == []


def test_a_broken_change_leaves_the_old_pods_serving() -> None:
    before, after = model(), model(drainSeconds=7)
    old, new = deployment(before), deployment(after)
    revisions = [item["metadata"]["labels"][contract.LABEL_REVISION] for item in (old, new)]
    now = observed(
        [old, new], [pod(revisions[0]), pod(revisions[1], ready=False)], [manifests.service(DEFAULTS, after, 0)]
    )
    actions = plan(DEFAULTS, after, now, NOW)
    assert kinds(actions) == []
    ready = next(c for c in status(actions)["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "True"


def test_a_paused_model_is_left_alone() -> None:
    before = model()
    assert kinds(plan(DEFAULTS, model(paused=True, drainSeconds=7), settled(before), NOW)) == []


def test_a_model_that_is_being_deleted_is_left_to_kubernetes_and_says_that_it_drains() -> None:
    going = model(deleting=True)
    actions = plan(DEFAULTS, going, settled(going), NOW)
    assert kinds(actions) == []
    assert {condition["reason"] for condition in status(actions)["conditions"]} == {"Draining"}


def test_an_event_is_told_once() -> None:
    wanted = model()
    first = plan(DEFAULTS, wanted, settled(wanted), NOW)
    assert [action.reason for action in first if isinstance(action, Tell)] == ["Serving", "Complete"]
    again = plan(DEFAULTS, model(status=status(first)), settled(wanted), NOW)
    assert not [action for action in again if isinstance(action, Tell)]


def test_holds_ignores_what_others_added_and_sees_what_they_changed() -> None:
    assert holds({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2, "c": 3}, 4], "d": 5})
    assert not holds({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]})
    assert not holds({"a": [1, 2]}, {"a": [1]})


def test_a_gpu_comes_from_the_chart_unless_the_model_names_one() -> None:
    default = manifests.pod_template(DEFAULTS, model(device="cuda"), 0, "r")["spec"]["containers"][0]
    assert (default["image"], default["resources"]["limits"]["nvidia.com/gpu"]) == ("shardline:1-cuda", 1)
    named = model(device="cuda", resources={"limits": {"nvidia.com/gpu": 2}})
    assert manifests.pod_template(DEFAULTS, named, 0, "r")["spec"]["containers"][0]["resources"]["limits"] == {
        "memory": "2Gi",
        "nvidia.com/gpu": 2,
    }


def test_replicas_run_with_least_rights() -> None:
    spec = manifests.pod_template(DEFAULTS, model(), 0, "r")["spec"]
    container = spec["containers"][0]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["volumes"][-1]["persistentVolumeClaim"]["readOnly"] is True
    assert spec["terminationGracePeriodSeconds"] > 60


def test_no_old_pod_goes_for_a_new_one_that_no_node_would_take() -> None:
    before, after = model(replicas=2), model(replicas=2, resources={"limits": {"memory": "900Gi"}})
    revision = manifests.revision_of(DEFAULTS, after)
    hopeless = "2 Insufficient memory. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    full = "2 Insufficient memory. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    for message, scaled in ((hopeless, []), ("persistentvolumeclaim not found", []), (full, ["Scale"])):
        old = settled(before, 2)
        pods = [*old.pods, *[pod(revision, ready=False, homeless=message) for _ in range(2)]]
        now = observed([deployment(before, 2), deployment(after, 2)], pods, list(old.services.values()))
        assert kinds(plan(DEFAULTS, after, now, NOW)) == scaled
