"""Steady calls by tritonclient from inside the cluster's network.

load.py ADDRESS MODEL CALLERS CONNECTIONS STOPFILE -> JSON on stdout. Runs until STOPFILE exists, at most five minutes. Never retries:
every error is a client's error.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import tritonclient.grpc.aio as triton

LONGEST_S = 300


def goes_on(stop: Path, end: float) -> bool:
    return time.monotonic() < end and not stop.exists()


async def caller(client: triton.InferenceServerClient, model: str, stop: Path, counts: Counter[str]) -> None:
    image = triton.InferInput("image", [1, 64], "FP32")
    image.set_data_from_numpy(np.zeros((1, 64), np.float32))
    end = time.monotonic() + LONGEST_S
    while goes_on(stop, end):
        try:
            await client.infer(model, [image], client_timeout=30.0)
            counts["ok"] += 1
        except Exception as error:
            counts[f"{type(error).__name__}: {error}"] += 1
        await asyncio.sleep(0.01)


async def main(address: str, model: str, callers: int, connections: int, stop: Path) -> None:
    counts: Counter[str] = Counter()
    # By default all channels of a process to one address share a connection.
    apart = [("grpc.use_local_subchannel_pool", 1)]
    clients = [triton.InferenceServerClient(address, channel_args=apart) for _ in range(connections)]
    await asyncio.gather(*(caller(clients[at % connections], model, stop, counts) for at in range(callers)))
    for client in clients:
        await client.close()
    print(json.dumps(counts))


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])))
