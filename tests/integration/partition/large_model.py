"""A child process that plans and splits a model of more than 4 GB, and says how much memory that took at its peak."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from shardline.partition.extract import extract
from shardline.partition.planning import PlanRequest, make_plan


def peak_bytes() -> int:
    """The most memory that this program held; getrusage would count what the process held before it became this one."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def main() -> None:
    """argv: model file, output folder, and `estimate` or `measure`."""
    model, out, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    request = PlanRequest(memory_per_pod=int(2.5 * 2**30), batch=2, estimate=mode == "estimate")
    plan = make_plan(model, request)
    stages = extract(plan, model, out)
    print(json.dumps({"peak_bytes": peak_bytes(), "stages": [str(path) for path in stages.models]}))


if __name__ == "__main__":
    main()
