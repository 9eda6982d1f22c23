"""What the controller, the pods that it makes, and the chart agree on: labels, ports, variables. Nothing else names them.

A replica's pod runs `python -m shardline.replica`, told by these variables and by those of the chart (Redis, cluster, logs).
"""

from __future__ import annotations

GROUP = "shardline.dev"
VERSION = "v1alpha1"
KIND = "Model"
PLURAL = "models"
FIELD_MANAGER = "shardline-controller"

LABEL_MODEL = f"{GROUP}/model"
LABEL_STAGE = f"{GROUP}/stage"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_PLAN = f"{GROUP}/plan"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_COMPONENT = "app.kubernetes.io/component"
NAME = "shardline"
REPLICA, PLANNER, ROUTER = "replica", "planner", "router"

PORT_CONTROL = 8003
PORT_LINK = 8004
PORT_METRICS = 8002

MODELS_PATH = "/models"
CACHE_PATH = "/cache"
PLAN_PATH = "/etc/shardline/plan"
PLAN_FILE = "bundle"
ENDED_WITH = "/dev/termination-log"
"""Where a planning job leaves its result: kubelet shows it in the pod's status."""
CONTAINER = "replica"
COMMAND = ("python", "-m", "shardline.replica")
FETCH_COMMAND = ("python", "-m", "shardline.controller.fetch")
"""Gets the model, or its stage, onto the node, and becomes the replica."""
PLANNER_CONTAINER = "planner"
PLANNER_COMMAND = ("python", "-m", "shardline.controller.planner")
EXIT_UNPLANNABLE = 3
"""Of a planning job that must not be tried again: the model cannot be cut as asked."""

ENV_REPOSITORY = "SHARDLINE_REPOSITORY"
ENV_MODELS = "SHARDLINE_MODELS"
ENV_VERSION = "SHARDLINE_VERSION"
ENV_REQUIRE = "SHARDLINE_REQUIRE_MODELS"
ENV_STAGE = "SHARDLINE_STAGE"
ENV_STAGE_INDEX = "SHARDLINE_STAGE_INDEX"
ENV_PLAN = "SHARDLINE_PLAN"
ENV_CACHE = "SHARDLINE_CACHE"
ENV_CACHE_BYTES = "SHARDLINE_CACHE_BYTES"
ENV_STAGES = "SHARDLINE_STAGES"
ENV_MEMORY = "SHARDLINE_STAGE_MEMORY_BYTES"
ENV_ESTIMATE = "SHARDLINE_ESTIMATE"
ENV_RUN_DIR = "SHARDLINE_RUN_DIR"
ENV_DEVICE = "SHARDLINE_DEVICE"
ENV_CONTROL = "SHARDLINE_CONTROL_ADDRESS"
ENV_LINK = "SHARDLINE_LINK_ADDRESS"
ENV_ADVERTISE = "SHARDLINE_ADVERTISE_HOST"
ENV_METRICS_PORT = "SHARDLINE_METRICS_PORT"
ENV_DRAIN = "SHARDLINE_DRAIN_S"
ENV_POD = "POD_NAME"

GRACE_BEYOND_DRAIN_S = 15
"""A pod is ended by force only so long after its drain should be over."""
