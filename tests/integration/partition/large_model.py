"""A child process that plans and splits a model of more than 4 GB, and says how much memory that took at its peak."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from shardline.partition.extract import extract
from shardline.partition.planning import PlanRequest, make_plan


def main() -> None:
    """argv: model file, output folder, and `estimate` or `measure`."""
    model, out, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    request = PlanRequest(memory_per_pod=int(2.5 * 2**30), batch=2, estimate=mode == "estimate")
    plan = make_plan(model, request)
    stages = extract(plan, model, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_bytes": peak, "stages": [str(path) for path in stages.models]}))


if __name__ == "__main__":
    main()
