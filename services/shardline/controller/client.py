"""A release of Shardline on the cluster of the user's current kube context, for the command line."""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from shardline.controller import contract
from shardline.controller.api import (
    DEPLOYMENT,
    MODEL,
    POD,
    SECRET,
    SERVICE,
    Api,
    ApiError,
    connect_as_user,
)
from shardline.controller.forward import forwarded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shardline.controller.spec import Manifest

__all__ = ["ApiError", "Release", "release"]

USER = "shardline-cli"
_REDIS_PORT, _ROUTER_PORT = 6379, 8001


@dataclass(frozen=True, slots=True)
class Release:
    """A release that was found. context: of the kubeconfig."""

    api: Api
    name: str
    context: str

    @property
    def where(self) -> str:
        """In words."""
        return f"release {self.name} in namespace {self.api.namespace} of {self.context}"

    @property
    def cluster(self) -> str:
        """Its name in Redis, as the chart gives it."""
        return f"{self.api.namespace}.{self.name}"[:63]

    def _selector(self, component: str) -> str:
        return (
            f"{contract.LABEL_NAME}={contract.NAME},{contract.LABEL_INSTANCE}={self.name},"
            f"{contract.LABEL_COMPONENT}={component}"
        )

    async def ready_pod(self, component: str) -> str:
        """The name of a pod that is ready. Raises ApiError."""
        found = (await self.api.list(POD, self._selector(component)))["items"]
        for item in found:
            conditions = (item.get("status") or {}).get("conditions") or []
            if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                return str(item["metadata"]["name"])
        raise ApiError(404, "NotReady", f"{self.where}: none of its {len(found)} {component} pods is ready")

    @asynccontextmanager
    async def router(self) -> AsyncIterator[str]:
        """HOST:PORT of a router, forwarded while the block runs. Raises ApiError."""
        pod = await self.ready_pod(contract.ROUTER)
        async with forwarded(self.api, pod, _ROUTER_PORT) as port:
            yield f"127.0.0.1:{port}"

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[str]:
        """The URL of its Redis; the bundled one is forwarded while the block runs. Raises ApiError."""
        variables = await self._router_variables()
        told = variables["SHARDLINE_REDIS_URL"]
        if "REDIS_PASSWORD" not in variables:
            yield told.get("value") or await self._secret(told)
            return
        password = await self._secret(variables["REDIS_PASSWORD"])
        pod = await self.ready_pod("redis")
        async with forwarded(self.api, pod, _REDIS_PORT) as port:
            yield f"redis://:{quote(password, safe='')}@127.0.0.1:{port}/0"

    async def _router_variables(self) -> dict[str, Any]:
        (deployment,) = (await self.api.list(DEPLOYMENT, self._selector(contract.ROUTER)))["items"]
        return {entry["name"]: entry for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}

    async def _secret(self, variable: Manifest) -> str:
        reference = variable["valueFrom"]["secretKeyRef"]
        secret = await self.api.get(SECRET, reference["name"])
        return base64.b64decode(secret["data"][reference["key"]]).decode()

    async def models(self) -> list[Manifest]:
        """Its Model objects. Raises ApiError."""
        return list((await self.api.list(MODEL))["items"])

    async def model(self, name: str) -> Manifest:
        """One of them. Raises ApiError."""
        return await self.api.get(MODEL, name)

    async def deploy(self, manifest: Manifest) -> Manifest:
        """Make a Model be like this. Raises ApiError."""
        return await self.api.apply(manifest, USER)


@asynccontextmanager
async def release(namespace: str = "") -> AsyncIterator[Release]:
    """The release in a namespace ("": the context's; if there is none, the only one of the cluster). Raises ApiError."""
    api, context = await connect_as_user(namespace)
    try:
        yield await _find(api, context, everywhere=not namespace)
    finally:
        await api.close()


async def _find(api: Api, context: str, *, everywhere: bool) -> Release:
    selector = f"{contract.LABEL_NAME}={contract.NAME},{contract.LABEL_COMPONENT}={contract.ROUTER}"
    found = (await api.list(SERVICE, selector))["items"]
    if not found and everywhere:
        try:
            found = (await api.list_everywhere(SERVICE, selector))["items"]
        except ApiError as error:
            if error.status != 403:  # a user of one namespace
                raise
    names = {(item["metadata"]["namespace"], item["metadata"]["labels"][contract.LABEL_INSTANCE]) for item in found}
    if len(names) != 1:
        spaces = ", ".join(sorted(space for space, _ in names))
        where = f"in namespace {api.namespace} of {context}"
        text = f"several: say --url kube:NAMESPACE, one of {spaces}" if names else f"no release of shardline {where}"
        raise ApiError(404, "NoRelease", text)
    ((space, name),) = names
    return Release(api if space == api.namespace else api.of(space), name, context)
