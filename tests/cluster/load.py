"""Steady calls by tritonclient from inside the cluster's network: load.py ADDRESS MODEL CALLERS STOPFILE -> JSON on stdout.

Runs until STOPFILE exists, at most two minutes. Never retries: every error is a client's error.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import tritonclient.grpc.aio as triton

LONGEST_S = 120


def goes_on(stop: Path, end: float) -> bool:
    return time.monotonic() < end and not stop.exists()


async def caller(client: triton.InferenceServerClient, model: str, stop: Path, counts: Counter[str]) -> None:
    image = triton.InferInput("image", [1, 64], "FP32")
    image.set_data_from_numpy(np.zeros((1, 64), np.float32))
    end = time.monotonic() + LONGEST_S
    while goes_on(stop, end):
        try:
            await client.infer(model, [image], client_timeout=20.0)
            counts["ok"] += 1
        except Exception as error:
            counts[f"{type(error).__name__}: {error}"] += 1
        await asyncio.sleep(0.01)


async def main(address: str, model: str, callers: int, stop: Path) -> None:
    counts: Counter[str] = Counter()
    async with triton.InferenceServerClient(address) as client:
        await asyncio.gather(*(caller(client, model, stop, counts) for _ in range(callers)))
    print(json.dumps(counts))


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
