"""What logs, metrics and receipts cost: the tiny model with accounting on and off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtests.bench.matrix import measure_model
from loadtests.bench.results import Key, cells, ratios
from loadtests.bench.sections import Skipped
from loadtests.bench.systems import System
from loadtests.bench.tables import Table, number

if TYPE_CHECKING:
    from loadtests.bench.sections import Setting

_CALLERS = (1, 8, 32, 64)
_OFF = System(
    "native-1-off", "accounting off", front="native", replicas=1, environment=(("SHARDLINE_ACCOUNTING", "false"),)
)
_ON = System("native-1-on", "accounting on", front="native", replicas=1)


def measure(setting: Setting) -> list[Table]:
    """Both configurations side by side, interleaved like the main part."""
    model = setting.model("digits")
    missing: list[str] = []
    setting.say("accounting on and off")
    samples = list(
        measure_model(
            model, (_ON, _OFF), _CALLERS, setting.pace, setting.work, skipped=missing.append, step=setting.say
        )
    )
    if missing:
        raise Skipped("; ".join(missing))
    measured, share = cells(samples), ratios(samples, _OFF.key)
    rows = tuple(
        (
            str(count),
            number(measured[Key(model.name, _ON.key, count)].rate),
            number(measured[Key(model.name, _OFF.key, count)].rate),
            f"{100 * (1 - share[Key(model.name, _ON.key, count)]):+.1f} %",
        )
        for count in _CALLERS
    )
    columns = ("callers", "requests/s, on", "requests/s, off", "cost")
    note = "Accounting: metrics, access lines, receipts. Goal: at most 10 % of the throughput."
    return [Table("Accounting on and off, digits, native ×1", columns, rows, note)]
