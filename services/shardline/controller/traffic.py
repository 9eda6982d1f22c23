"""Rate and p99 of every Model, from the routers' own counts. Pure but for the scrape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from shardline.controller.observed import Traffic

HISTOGRAM = "shardline_request_seconds"
SCRAPE_S = 3.0

Counts = Mapping[str, Mapping[float, float]]
"""{model: {upper bound in seconds: requests that took at most so long, since the router started}}"""


def read_counts(text: str) -> dict[str, dict[float, float]]:
    """A router's counts from its metrics, summed over versions."""
    found: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    wanted = "\n".join(line for line in text.splitlines() if HISTOGRAM in line)
    for family in text_string_to_metric_families(wanted + "\n"):
        for sample in family.samples:
            if sample.name == f"{HISTOGRAM}_bucket":
                found[sample.labels.get("model", "")][float(sample.labels["le"])] += sample.value
    return {model: dict(buckets) for model, buckets in found.items()}


def growth(before: Counts, now: Counts) -> dict[str, dict[float, float]]:
    """What was added to one router's counts; all of it where the router has started anew."""
    grown = {}
    for model, buckets in now.items():
        was = before.get(model, {})
        restarted = any(count < was.get(bound, 0) for bound, count in buckets.items())
        grown[model] = {bound: count - (0 if restarted else was.get(bound, 0)) for bound, count in buckets.items()}
    return grown


def traffic_of(grown: Iterable[Mapping[str, Mapping[float, float]]], seconds: float) -> dict[str, Traffic]:
    """Over all routers: what was counted within so many seconds, by model."""
    total: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for counts in grown:
        for model, buckets in counts.items():
            for bound, count in buckets.items():
                total[model][bound] += count
    return {
        model: Traffic(max(buckets.values(), default=0.0) / seconds, quantile(buckets, 0.99))
        for model, buckets in total.items()
    }


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """As Prometheus' histogram_quantile: linear within its bucket; the last finite bound beyond. None without requests.

    >>> quantile({0.1: 50, 0.2: 100, float("inf"): 100}, 0.75)
    0.15
    """
    ordered = sorted(buckets.items())
    wanted = share * (ordered[-1][1] if ordered else 0)
    if not wanted:
        return None
    low, below = 0.0, 0.0
    for bound, count in ordered:
        if count >= wanted:
            return low if bound == float("inf") else round(low + (bound - low) * (wanted - below) / (count - below), 9)
        low, below = bound, count
    return low


@dataclass(slots=True)
class Scraper:
    """Reads all routers and remembers what they said last."""

    port: int
    _last: dict[str, Counts] = field(default_factory=dict)
    _last_at: float = 0.0

    async def look(self, addresses: Iterable[str], now: float) -> dict[str, Traffic]:
        """Traffic since the last look; {} at the first. now: monotonic seconds."""
        seen = {}
        timeout = aiohttp.ClientTimeout(total=SCRAPE_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for address in addresses:
                if (counts := await self._read(session, address)) is not None:
                    seen[address] = counts
        grown = [growth(self._last[address], counts) for address, counts in seen.items() if address in self._last]
        seconds, first = now - self._last_at, not self._last
        self._last, self._last_at = dict(seen), now
        return {} if first else traffic_of(grown, seconds)

    async def _read(self, session: aiohttp.ClientSession, address: str) -> Counts | None:
        host = f"[{address}]" if ":" in address else address
        try:
            async with session.get(f"http://{host}:{self.port}/metrics") as response:
                return read_counts(await response.text())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None  # it has just gone or not yet come; the next look will tell
