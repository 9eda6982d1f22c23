"""The door to the API server: JSON in, JSON out. Only this file imports the kubernetes package.

Its generated models are not used: the controller reads and writes few fields of few kinds, and a new field of Kubernetes must
not need a new release of ours. What is used: configuration, token renewal, TLS, the connection pool.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import list_kube_config_contexts, load_kube_config

from shardline.controller import contract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from shardline.controller.spec import Manifest

REQUEST_S = 15.0
WATCH_S = 290


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object: how its path is made."""

    name: str
    group: str
    version: str
    plural: str

    @property
    def api_version(self) -> str:
        """As in a manifest."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """The path of a collection (of all namespaces where none is named), an object, or a part of it."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root, "namespaces" if namespace else "", namespace, self.plural, name, subresource]
        return "/".join(part for part in parts if part)


MODEL = Kind(contract.KIND, contract.GROUP, contract.VERSION, contract.PLURAL)
DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments")
SERVICE = Kind("Service", "", "v1", "services")
POD = Kind("Pod", "", "v1", "pods")
SLICE = Kind("EndpointSlice", "discovery.k8s.io", "v1", "endpointslices")
EVENT = Kind("Event", "", "v1", "events")
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases")
JOB = Kind("Job", "batch", "v1", "jobs")
CONFIG_MAP = Kind("ConfigMap", "", "v1", "configmaps")
SECRET = Kind("Secret", "", "v1", "secrets")
KINDS = {kind.name: kind for kind in (MODEL, DEPLOYMENT, SERVICE, POD, SLICE, EVENT, LEASE, JOB, CONFIG_MAP, SECRET)}


class ApiError(Exception):
    """The API server refused, or did not answer (status 0). reason: its word, such as NotFound, Conflict, Expired."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{reason or status}: {message}")
        self.status = status
        self.reason = reason


class Api:
    """One namespace of a cluster."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    def of(self, namespace: str) -> Api:
        """The same cluster's other namespace, on the same connections."""
        return Api(self._client, namespace)

    async def get(self, kind: Kind, name: str) -> Manifest:
        """One object. Raises ApiError."""
        return await self._json("GET", kind.path(self.namespace, name))

    async def list(self, kind: Kind, selector: str = "") -> Manifest:
        """All objects that a label selector finds, as the API server's list. Raises ApiError."""
        return await self._json("GET", kind.path(self.namespace), query={"labelSelector": selector})

    async def list_everywhere(self, kind: Kind, selector: str = "") -> Manifest:
        """The same of all namespaces. Raises ApiError."""
        return await self._json("GET", kind.path(""), query={"labelSelector": selector})

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Make a new object. Raises ApiError."""
        return await self._json("POST", kind.path(self.namespace), body=manifest)

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Replace an object of the same resourceVersion. Raises ApiError (Conflict where it changed)."""
        return await self._json("PUT", kind.path(self.namespace, manifest["metadata"]["name"]), body=manifest)

    async def apply(self, manifest: Manifest, manager: str = contract.FIELD_MANAGER) -> Manifest:
        """Server-side apply, by force: what others set in the manager's fields is undone. Raises ApiError."""
        path = KINDS[manifest["kind"]].path(self.namespace, manifest["metadata"]["name"])
        query = {"fieldManager": manager, "force": "true"}
        return await self._json("PATCH", path, body=manifest, query=query, content="application/apply-patch+yaml")

    async def merge(self, kind: Kind, name: str, patch: Manifest, subresource: str = "") -> Manifest:
        """JSON merge patch. Raises ApiError."""
        path = kind.path(self.namespace, name, subresource)
        query = {"fieldManager": contract.FIELD_MANAGER}
        return await self._json("PATCH", path, body=patch, query=query, content="application/merge-patch+json")

    async def delete(self, kind: Kind, name: str, propagation: str = "Background") -> None:
        """Remove an object, its dependents after it (Background) or before it (Foreground); nothing if it is not there.

        Raises ApiError.
        """
        try:
            body = {"propagationPolicy": propagation}
            await self._json("DELETE", kind.path(self.namespace, name), body=body)
        except ApiError as error:
            if error.status != 404:
                raise

    async def watch(self, kind: Kind, version: str, selector: str = "") -> AsyncIterator[Manifest]:
        """Changes since a resourceVersion, until the server ends the stream. Raises ApiError."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
            "resourceVersion": version,
            "labelSelector": selector,
        }
        response = await self._request("GET", kind.path(self.namespace), query=query, timeout_s=WATCH_S + 30)
        try:
            async for line in response.content:
                yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(0, "Unreachable", str(error) or type(error).__name__) from error
        finally:
            response.close()

    async def port_forward(self, pod: str, port: int) -> aiohttp.ClientWebSocketResponse:
        """A stream to a pod's port, in the framing of v4.channel.k8s.io. Raises ApiError."""
        path = POD.path(self.namespace, pod, "portforward")
        try:
            _, url, headers, *_ = await self._client.param_serialize(
                "GET", path, query_params=[("ports", str(port))], auth_settings=["BearerToken"]
            )
            rest = self._client.rest_client
            if rest.pool_manager is None:
                rest.pool_manager = rest._create_pool_manager()  # noqa: SLF001  as its own WsApiClient does
            stream: aiohttp.ClientWebSocketResponse = await rest.pool_manager.ws_connect(
                url, headers=headers, protocols=("v4.channel.k8s.io",), max_msg_size=0
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", str(error) or type(error).__name__) from error
        return stream

    async def _json(
        self,
        method: str,
        path: str,
        body: Manifest | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "",
    ) -> Manifest:
        response = await self._request(method, path, body=body, query=query, content=content)
        try:
            value: Manifest = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(0, "Unreachable", str(error) or type(error).__name__) from error
        return value

    async def _request(
        self,
        method: str,
        path: str,
        body: Manifest | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "",
        timeout_s: float = REQUEST_S,
    ) -> aiohttp.ClientResponse:
        """Send it; a status other than 2xx is raised. The caller reads or closes the response."""
        headers = {"Accept": "application/json", "Content-Type": content or "application/json"}
        pairs = [(key, value) for key, value in (query or {}).items() if value]
        try:
            made = await self._client.param_serialize(
                method, path, query_params=pairs, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=5.0)
            answer = await self._client.call_api(*made, _request_timeout=timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", str(error) or type(error).__name__) from error
        response: aiohttp.ClientResponse = answer.response
        if response.status >= 300:
            raise await _refusal(response)
        return response

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()  # type: ignore[no-untyped-call]


async def _refusal(response: aiohttp.ClientResponse) -> ApiError:
    text = await response.text()
    try:
        status = json.loads(text)
    except ValueError:
        status = {}
    return ApiError(response.status, status.get("reason", ""), status.get("message") or text[:500])


async def connect(namespace: str) -> Api:
    """With the pod's own account, or outside a cluster with the current kubeconfig."""
    configuration = _configuration()
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException:
        await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return Api(ApiClient(configuration), namespace)


async def connect_as_user(namespace: str) -> tuple[Api, str]:
    """With the user's kubeconfig; (api, name of the current context). namespace: "" for the context's own. Raises ApiError."""
    configuration = _configuration()
    try:
        _, current = list_kube_config_contexts()  # type: ignore[no-untyped-call]
        await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise ApiError(0, "NoKubeconfig", str(error)) from error
    own = (current.get("context") or {}).get("namespace") or "default"
    return Api(ApiClient(configuration), namespace or own), current.get("name", "")


def _configuration() -> Configuration:
    configuration = Configuration()
    configuration.connection_pool_maxsize = 64  # watches keep one each
    configuration.retries = 0
    return configuration
