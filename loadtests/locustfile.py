"""Locust: one kind of user per example model, each sending real inputs and checking the answers.

locust -f loadtests/locustfile.py --url 127.0.0.1:8001 --scenario ramp     (with Locust's web page)
python -m loadtests.run --scenario ramp                                    (headless, with a report)
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import grpc
import grpc.experimental.gevent
import numpy as np
from locust import LoadTestShape, User, between, constant, events, task

from examples import inputs
from loadtests.scenarios import SCENARIOS, users_at
from loadtests.tensors import ELEMENT_TYPES, infer_request
from shardline.pb.inference import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from locust.argument_parser import LocustArgumentParser
    from locust.env import Environment
    from numpy.typing import NDArray

grpc.experimental.gevent.init_gevent()  # before any channel, else a call blocks all users

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each user, as callers elsewhere have
]
_NUMPY = {row.name: row.numpy for row in ELEMENT_TYPES.values()}
_TIMEOUT_S = 30.0

Outputs = dict[str, "NDArray[Any]"]


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--url", default="127.0.0.1:8001", help="host:port of the gRPC endpoint")
    parser.add_argument("--scenario", choices=SCENARIOS, default="steady", help="how the number of users changes")
    parser.add_argument("--peak-users", type=int, default=20, help="users at the scenario's highest point")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the scenario")


@cache
def requests_of(model: str) -> tuple[bytes, ...]:
    """The model's real rows, serialised once for all users: the load generator should not be what is measured."""
    return tuple(infer_request(model, row).SerializeToString() for row in inputs.rows(model))


@events.init.add_listener
def _prepare(environment: Environment, **_: object) -> None:
    """Before the clock starts: data sets and tokenizer take seconds to load."""
    for user in environment.user_classes:
        requests_of(user.model)  # type: ignore[attr-defined]


class WrongAnswer(AssertionError):
    """The server answered, but not what the model says."""


def wrong_digit(outputs: Outputs) -> str | None:
    """Probabilities add up to one, and the label is the likeliest."""
    probabilities, label = outputs["probabilities"][0], int(outputs["label"][0])
    if not np.isclose(probabilities.sum(), 1.0, atol=1e-3):
        return f"probabilities add up to {probabilities.sum()}"
    return None if label == probabilities.argmax() else f"label {label} is not the likeliest"


def wrong_embedding(outputs: Outputs) -> str | None:
    """Embeddings have length one."""
    length = float(np.linalg.norm(outputs["embedding"][0]))
    return None if np.isclose(length, 1.0, atol=1e-3) else f"an embedding of length {length}"


def wrong_scores(outputs: Outputs) -> str | None:
    """A thousand finite scores."""
    logits = outputs["logits"]
    right = logits.shape == (1, 1000) and bool(np.isfinite(logits).all())
    return None if right else f"scores of shape {logits.shape}, or not finite"


COMPLAINTS: dict[str, Callable[[Outputs], str | None]] = {
    "digits": wrong_digit,
    "minilm": wrong_embedding,
    "resnet50": wrong_scores,
}
"""Per model: what is wrong with an answer, None where nothing is."""


class Shape(LoadTestShape):
    """The scenario chosen on the command line."""

    def tick(self) -> tuple[int, float] | None:
        """Users wanted now, and how many may start per second; None ends the run."""
        chosen: Any = self.runner.environment.parsed_options  # type: ignore[union-attr]
        elapsed_s = self.get_run_time()  # type: ignore[no-untyped-call]
        users = users_at(chosen.scenario, float(elapsed_s), chosen.peak_users, chosen.seconds)
        return None if users is None else (users, max(10.0, float(users)))


class InferenceUser(User):
    """A caller of one model: sends its rows in turn over a channel of its own."""

    abstract = True
    model: ClassVar[str]

    def on_start(self) -> None:
        """Connect."""
        options: Any = self.environment.parsed_options
        self.channel = grpc.insecure_channel(options.url, _OPTIONS)
        self.call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(_METHOD)
        self.requests = requests_of(self.model)
        self.sent = 0

    def on_stop(self) -> None:
        """Close the channel."""
        self.channel.close()

    @task
    def infer(self) -> None:
        """Send the next row, check the answer, tell Locust."""
        number = self.sent % len(self.requests)
        self.sent += 1
        begin = time.perf_counter()
        data, error = b"", None
        try:
            data = self.call(self.requests[number], timeout=_TIMEOUT_S)
            if complaint := COMPLAINTS[self.model](_outputs(data)):
                raise WrongAnswer(f"{self.model}, row {number}: {complaint}")
        except (grpc.RpcError, WrongAnswer) as failure:
            error = failure
        self.environment.events.request.fire(
            request_type="gRPC",
            name=self.model,
            response_time=1e3 * (time.perf_counter() - begin),
            response_length=len(data),
            exception=error,
            context={},
        )


def _outputs(data: bytes) -> Outputs:
    response = pb.ModelInferResponse.FromString(data)
    return {
        tensor.name: np.frombuffer(raw, _NUMPY[tensor.datatype]).reshape(tensor.shape)
        for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


class DigitsUser(InferenceUser):
    """Classifies handwritten digits, with almost no pause."""

    model = "digits"
    weight = 6
    wait_time = between(0.001, 0.02)


class MinilmUser(InferenceUser):
    """Embeds sentences of many lengths."""

    model = "minilm"
    weight = 3
    wait_time = between(0.01, 0.1)


class Resnet50User(InferenceUser):
    """Classifies images of 602 kB."""

    model = "resnet50"
    weight = 1
    wait_time = constant(0.2)
