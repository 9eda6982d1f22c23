"""A live copy of the objects of one kind: list, then watch, and again from the start when the API server forgets or goes away.

The copy stands while the API server is away; how long it waits between attempts doubles up to a bound.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from shardline.controller.api import Api, ApiError, Kind
from shardline.ops import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shardline.controller.spec import Manifest

log = logs.get(__name__)

FIRST_S, CAP_S = 0.2, 10.0


def pause_s(failures: int, draw: Callable[[], float] = random.random) -> float:
    """Seconds before the next attempt after so many failures: doubling to CAP_S, of it between half and all."""
    longest: float = min(CAP_S, FIRST_S * 2.0 ** min(failures, 10))
    return longest * (0.5 + 0.5 * draw())


class Reflector:
    """Keeps `objects` (by name) like the API server's. on_change gets every object that came, changed or went."""

    def __init__(self, api: Api, kind: Kind, selector: str, on_change: Callable[[Manifest], None]) -> None:
        self.kind = kind
        self._api = api
        self._selector = selector
        self._on_change = on_change
        self._objects: dict[str, Manifest] = {}
        self._listed = asyncio.Event()

    @property
    def objects(self) -> Mapping[str, Manifest]:
        """The copy."""
        return self._objects

    async def listed(self) -> None:
        """Wait for the first complete copy."""
        await self._listed.wait()

    def learn(self, item: Manifest) -> None:
        """Take an object that the API server just answered with, unless the copy is newer already."""
        name = item["metadata"]["name"]
        known = self._objects.get(name)
        if known is None or _version(known) < _version(item):
            self._objects[name] = item

    async def run(self) -> None:
        """Follow until cancelled."""
        failures = 0
        while True:
            try:
                version = await self._list()
                failures = 0
                await self._follow(version)
            except ApiError as error:
                if error.status == 410:  # what we knew is too old: list again
                    continue
                log.log(30 if failures == 3 else 10, "reflect.retried", kind=self.kind.name, error=str(error))
                await asyncio.sleep(pause_s(failures))
                failures += 1

    async def _list(self) -> str:
        answer = await self._api.list(self.kind, self._selector)
        found = {item["metadata"]["name"]: self._whole(item) for item in answer.get("items") or []}
        gone = [item for name, item in self._objects.items() if name not in found]
        changed = [item for name, item in found.items() if self._objects.get(name) != item]
        self._objects = found
        self._listed.set()
        for item in (*gone, *changed):
            self._on_change(item)
        version: str = answer["metadata"]["resourceVersion"]
        return version

    async def _follow(self, version: str) -> None:
        while True:
            async for change in self._api.watch(self.kind, version, self._selector):
                item = change["object"]
                if change["type"] == "ERROR":
                    raise ApiError(int(item.get("code", 500)), item.get("reason", ""), item.get("message", ""))
                version = item["metadata"]["resourceVersion"]
                if change["type"] != "BOOKMARK":
                    self._take(change["type"], self._whole(item))

    def _take(self, change: str, item: Manifest) -> None:
        name = item["metadata"]["name"]
        if change == "DELETED":
            self._objects.pop(name, None)
        else:
            self.learn(item)
        self._on_change(item)

    def _whole(self, item: Manifest) -> Manifest:
        """Lists leave out each item's kind."""
        return {"apiVersion": self.kind.api_version, "kind": self.kind.name, **item}


def _version(item: Manifest) -> int:
    """Orders versions of one object, as Kubernetes has promised since 1.35 and has always done."""
    text = item["metadata"].get("resourceVersion", "0")
    return int(text) if text.isdigit() else 0
