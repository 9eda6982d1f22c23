"""Versions, loads, health, reflection and large requests, on clusters of two routers and two replicas."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests import onnx_models as models
from tests.cluster_process import ClusterProcess, eventually
from tests.integration.protocol.calls import ROW, TIMEOUT_S, output, raw_request, statistics, tensor
from tests.integration.protocol.conftest import FRONTS

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "inference.GRPCInferenceService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module", params=FRONTS)
def pairs(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClusterProcess]:
    repository = tmp_path_factory.mktemp("repository")
    models.save(repository, "add", 1, models.add_one(), "max_batch_size: 8")
    models.save(repository, "versioned", 1, models.versioned(1), "max_batch_size: 4")
    models.save(repository, "spare", 1, models.add_one(), "max_batch_size: 4")
    with ClusterProcess(
        redis_url, repository, request.param, 2, 2, f"pairs-{request.param}", ("add", "versioned", "spare")
    ) as cluster:
        yield cluster


def channel(cluster: ClusterProcess) -> grpc.Channel:
    """A connection of its own: the routers share the port, so each new one may meet another router."""
    return grpc.insecure_channel(cluster.url, options=[("grpc.use_local_subchannel_pool", 1)])


@pytest.fixture
def stub(pairs: ClusterProcess) -> Iterator[Any]:
    with channel(pairs) as opened:
        yield service_pb2_grpc.GRPCInferenceServiceStub(opened)


@pytest.fixture
def client(pairs: ClusterProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(pairs.url) as client:
        yield client


def replicas_of(call: Any) -> set[str]:
    """Which replicas the receipt names."""
    receipt = dict(call.trailing_metadata())["shardline-receipt"]
    return {item.partition("=")[2] for item in receipt.replace("|", ";").split(";") if item.startswith("replica=")}


def index(client: triton.InferenceServerClient) -> dict[tuple[str, str], tuple[str, str]]:
    """(state, reason) by model and version."""
    return {(item.name, item.version): (item.state, item.reason) for item in client.get_model_repository_index().models}


def test_a_large_request_runs_on_both_replicas_and_comes_back_in_order(stub: Any) -> None:
    array = np.arange(500 * 4, dtype=np.float32).reshape(500, 4)
    seen: set[str] = set()

    def both() -> bool:
        response, call = stub.ModelInfer.with_call(raw_request("add", {"x": array}), timeout=TIMEOUT_S)
        assert output(response).tolist() == (array + 1).tolist()
        seen.update(replicas_of(call))
        return len(replicas_of(call)) == 2

    eventually(both, lambda: f"rows ran on {seen}")


def test_both_routers_on_the_port_answer(pairs: ClusterProcess) -> None:
    def answered() -> list[float]:
        return [router.value('shardline_requests_total{model="add"') for router in pairs.role("router")]

    def one_more() -> bool:
        with channel(pairs) as opened:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(opened)
            assert (
                output(stub.ModelInfer(raw_request("add", {"x": ROW}), timeout=TIMEOUT_S)).tolist()
                == (ROW + 1).tolist()
            )
        return min(answered()) > 0

    eventually(one_more, lambda: f"requests by router: {answered()}")


def test_statistics_are_summed_over_replicas(stub: Any) -> None:
    before = statistics(stub, "add").inference_count
    calls = [stub.ModelInfer.future(raw_request("add", {"x": ROW}), timeout=TIMEOUT_S) for _ in range(40)]
    assert len(set().union(*(replicas_of(call) for call in calls if call.result()))) == 2
    assert statistics(stub, "add").inference_count == before + 40


def test_a_new_version_changes_answers_wholly_and_the_old_one_is_gone(
    pairs: ClusterProcess, client: triton.InferenceServerClient
) -> None:
    versions: list[int] = []
    torn: list[object] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def call_on() -> None:
        with triton.InferenceServerClient(pairs.url) as mine:
            while not stop.is_set():
                try:
                    result = mine.infer("versioned", [tensor("x", np.ones((9, 4), np.float32))])
                except InferenceServerException as error:
                    failures.append(error)
                    continue
                found = set(result.as_numpy("version").tolist()) | set(result.as_numpy("y").ravel().tolist())
                if len(found) != 1:
                    torn.append(found)
                versions.append(int(max(found)))

    callers = [threading.Thread(target=call_on) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        eventually(lambda: len(versions) > 20, "version 1 answers")
        models.save(pairs.repository, "versioned", 2, models.versioned(2))
        client.load_model("versioned")
        seen = len(versions)
        eventually(lambda: len(versions) > seen + 50, "version 2 answers")
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert failures == []
    assert torn == []
    assert set(versions) == {1, 2}
    assert set(versions[-10:]) == {2}
    with pytest.raises(InferenceServerException, match=r"NOT_FOUND.*no version 1.*2"):
        eventually(lambda: not client.infer("versioned", [tensor("x", ROW)], model_version="1"), "gone")
    assert index(client)["versioned", "2"][0] == "READY"
    assert index(client)["versioned", "1"][0] == "UNAVAILABLE"


def test_a_broken_new_version_leaves_the_old_one_serving(
    pairs: ClusterProcess, client: triton.InferenceServerClient
) -> None:
    models.save(pairs.repository, "add", 2, b"this is no model")
    try:
        with pytest.raises(InferenceServerException, match="FAILED_PRECONDITION") as caught:
            client.load_model("add")
        assert "version 2" in caught.value.message() or "add/2" in caught.value.message()
        assert client.infer("add", [tensor("x", ROW)]).get_response().model_version == "1"
        state, reason = index(client)["add", "2"]
        assert (state, bool(reason)) == ("UNAVAILABLE", True)
    finally:
        (pairs.repository / "add" / "2" / "model.onnx").unlink()
        (pairs.repository / "add" / "2").rmdir()


def test_a_config_given_with_the_load_holds_and_a_wrong_one_changes_nothing(
    client: triton.InferenceServerClient,
) -> None:
    client.load_model("add", config='{"max_batch_size": 2}')
    eventually(lambda: client.get_model_config("add").config.max_batch_size == 2, "the config given holds")
    assert client.infer("add", [tensor("x", np.ones((5, 4), np.float32))]).as_numpy("y").tolist() == [[2.0] * 4] * 5
    with pytest.raises(InferenceServerException, match="max_batch_size"):
        client.load_model("add", config='{"max_batch_size": -3}')
    assert client.get_model_config("add").config.max_batch_size == 2
    client.load_model("add")
    eventually(lambda: client.get_model_config("add").config.max_batch_size == 8, "the file's config holds again")


def test_unloaded_models_are_not_found_until_they_are_loaded_again(
    pairs: ClusterProcess, client: triton.InferenceServerClient
) -> None:
    with channel(pairs) as opened:
        health = health_pb2_grpc.HealthStub(opened)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="spare"), timeout=60)
        assert next(watch).status == SERVING
        client.unload_model("spare")
        assert next(watch).status == NOT_SERVING
        assert not client.is_model_ready("spare")
        with pytest.raises(InferenceServerException, match="NOT_FOUND"):
            client.infer("spare", [tensor("x", ROW)])
        assert index(client)["spare", "1"] == ("UNAVAILABLE", "unloaded")
        assert client.is_server_ready()
        client.load_model("spare")
        assert next(watch).status == SERVING
        watch.cancel()
    assert client.infer("spare", [tensor("x", ROW)]).as_numpy("y").tolist() == (ROW + 1).tolist()
    eventually(lambda: index(client)["spare", "1"][0] == "READY", "READY again")


def test_loading_or_unloading_what_is_not_there_is_not_found(client: triton.InferenceServerClient) -> None:
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match=r"NOT_FOUND.*no_such_model"):
            call("no_such_model")


def test_health_tells_of_the_server_and_of_each_model(pairs: ClusterProcess) -> None:
    with channel(pairs) as opened:
        health = health_pb2_grpc.HealthStub(opened)
        for name in ("", SERVICE, "shardline.router", "add", "versioned"):
            assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S).status == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="no_such_model"), timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_and_describes_the_service(pairs: ClusterProcess) -> None:
    with channel(pairs) as opened:
        database = ProtoReflectionDescriptorDatabase(opened)
        assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
        described = database.FindFileContainingSymbol(SERVICE)
        (service,) = described.service
        assert "ModelStreamInfer" in [method.name for method in service.method]
        assert "inference/model_config.proto" in described.dependency
        assert database.FindFileContainingSymbol("inference.ModelConfig").name == "inference/model_config.proto"


CALL = """
import sys
import grpc
from inference import grpc_service_pb2 as pb, grpc_service_pb2_grpc as services
assert not any(name.split(".")[0] in ("shardline", "tritonclient", "numpy") for name in sys.modules)
request = pb.ModelInferRequest(model_name="add")
request.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1, 2, 3, 4])
with grpc.insecure_channel(sys.argv[1]) as channel:
    answer = services.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=15)
print(answer.outputs[0].name, answer.raw_output_contents[0].hex())
"""


def test_fresh_stubs_from_the_proto_files_call_the_server(pairs: ClusterProcess, tmp_path: Path) -> None:
    proto = Path(__file__).parents[3] / "proto"
    files = [str(path.relative_to(proto)) for path in sorted((proto / "inference").glob("*.proto"))]
    words = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", f"--python_out={tmp_path}"]
    subprocess.run([*words, f"--grpc_python_out={tmp_path}", *files], check=True, timeout=60)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    called = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{CALL}", pairs.url],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert called.returncode == 0, called.stderr
    assert called.stdout.split() == ["y", (ROW + 1).tobytes().hex()]


def test_clusters_on_one_redis_do_not_see_each_other(redis_url: str, pairs: ClusterProcess, tmp_path: Path) -> None:
    models.save(tmp_path, "other", 1, models.add_one(), "max_batch_size: 4")
    name = f"{pairs.name}-other"
    with (
        ClusterProcess(redis_url, tmp_path, pairs.front, 1, 1, name, ("other",)) as other,
        channel(pairs) as ours,
        channel(other) as theirs,
    ):
        for opened, mine, foreign in ((ours, "add", "other"), (theirs, "other", "add")):
            stub = service_pb2_grpc.GRPCInferenceServiceStub(opened)
            stub.ModelInfer(raw_request(mine, {"x": ROW}), timeout=TIMEOUT_S)
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(raw_request(foreign, {"x": ROW}), timeout=TIMEOUT_S)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_router_without_replicas_is_live_and_not_ready(redis_url: str, pairs: ClusterProcess, tmp_path: Path) -> None:
    with (
        ClusterProcess(redis_url, tmp_path, pairs.front, 1, 0, f"{pairs.name}-empty") as empty,
        channel(empty) as opened,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(opened)
        client = triton.InferenceServerClient(empty.url)
        eventually(client.is_server_live, "live")
        assert not client.is_server_ready()
        health = health_pb2_grpc.HealthStub(opened)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status == NOT_SERVING
        with pytest.raises(grpc.RpcError, match="not known"):
            stub.ModelInfer(raw_request("add", {"x": ROW}), timeout=TIMEOUT_S)
        client.close()
