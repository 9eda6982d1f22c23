"""What the controller, the pods that it makes, and the chart agree on: labels, ports, variables. Nothing else names them.

A replica's pod runs `python -m shardline.replica`, told by these variables and by those of the chart (Redis, cluster, logs).
"""

from __future__ import annotations

GROUP = "shardline.dev"
VERSION = "v1alpha1"
KIND = "Model"
PLURAL = "models"
FIELD_MANAGER = "shardline-controller"
FINALIZER = f"{GROUP}/drain"

LABEL_MODEL = f"{GROUP}/model"
LABEL_STAGE = f"{GROUP}/stage"
LABEL_REVISION = f"{GROUP}/revision"
NAME_LABELS = {"app.kubernetes.io/name": "shardline", "app.kubernetes.io/component": "replica"}
LABEL_INSTANCE = "app.kubernetes.io/instance"

PORT_CONTROL = 8003
PORT_LINK = 8004
PORT_METRICS = 8002

MODELS_PATH = "/models"
CONTAINER = "replica"
COMMAND = ("python", "-m", "shardline.replica")

ENV_REPOSITORY = "SHARDLINE_REPOSITORY"
ENV_MODELS = "SHARDLINE_MODELS"
ENV_DEVICE = "SHARDLINE_DEVICE"
ENV_CONTROL = "SHARDLINE_CONTROL_ADDRESS"
ENV_LINK = "SHARDLINE_LINK_ADDRESS"
ENV_ADVERTISE = "SHARDLINE_ADVERTISE_HOST"
ENV_METRICS_PORT = "SHARDLINE_METRICS_PORT"
ENV_DRAIN = "SHARDLINE_DRAIN_S"
ENV_POD = "POD_NAME"

GRACE_BEYOND_DRAIN_S = 15
"""A pod is ended by force only so long after its drain should be over."""
