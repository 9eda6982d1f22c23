"""Structured log lines: an event's name and fields, as JSON or as text for people.

    log = logs.get(__name__)
    log.info("replica.joined", replica=info.id, pools=3)

Lines go to standard error. What libraries log by the standard module takes the same form.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, FilteringBoundLogger, Processor

    from shardline.ops.settings import ProcessSettings

_ACCESS = "request"
_NOISY = ("asyncio", "grpc", "urllib3", "httpcore", "kubernetes")


def configure(settings: ProcessSettings, process: str, stream: TextIO | None = None) -> None:
    """Set up this process's logs. process: what it is (`router`, `replica`), a field of each line."""
    out = sys.stderr if stream is None else stream
    json_lines = settings.log_format == "json" or (settings.log_format == "auto" and not out.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    constants = {"process": process, "pid": os.getpid(), "cluster": settings.cluster} if json_lines else {}
    shared = _processors(constants, json_lines)
    final: list[Processor] = [structlog.processors.JSONRenderer(default=str)] if json_lines else [_console(out)]
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    _adopt_standard_logging(out, level, shared, final)


def get(name: str, **fields: Any) -> FilteringBoundLogger:
    """A logger; its name and fields stand on each of its lines. Safe to call at import, before `configure`."""
    logger: FilteringBoundLogger = structlog.get_logger(source=name.removeprefix("shardline."), **fields)
    return logger


class AccessLog:
    """One line per request: errors always, the others at most so many per second.

    A request that gets no line costs one comparison and no formatting:

        if access.wanted(ok):
            access.write(ok, model=..., seconds=...)
    """

    def __init__(
        self,
        per_s: float,
        logger: FilteringBoundLogger | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """per_s: lines per second for requests that went well; also the burst. 0: none."""
        self._logger = get("access") if logger is None else logger
        self._clock = clock
        self._interval_s = 1.0 / per_s if per_s > 0 else float("inf")
        self._burst_s = max(1.0, self._interval_s) if per_s > 0 else 0.0
        # The time from which the next line is allowed: a token bucket in one number (GCRA).
        self._next = clock() - self._burst_s if per_s > 0 else float("inf")
        self._skipped = 0

    def wanted(self, ok: bool) -> bool:
        """Whether this request gets a line; takes a token where it went well."""
        if not ok:
            return True
        now = self._clock()
        if self._next > now:
            self._skipped += 1
            return False
        self._next = max(self._next, now - self._burst_s) + self._interval_s
        return True

    def write(self, ok: bool, **fields: Any) -> None:
        """Write the line. skipped: requests that got none since the last line."""
        if self._skipped:
            fields["skipped"] = self._skipped
            self._skipped = 0
        if ok:
            self._logger.info(_ACCESS, **fields)
        else:
            self._logger.warning(_ACCESS, **fields)


def _processors(constants: dict[str, object], json_lines: bool) -> list[Processor]:
    def add_constants(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**event, **constants}

    stamp = structlog.processors.TimeStamper(fmt="iso" if json_lines else "%H:%M:%S", utc=json_lines)
    chain: list[Processor] = [structlog.processors.add_log_level, stamp, add_constants]
    if json_lines:
        chain.append(structlog.processors.format_exc_info)
    return chain


def _add_source(logger: logging.Logger | None, _method: str, event: EventDict) -> EventDict:
    event["source"] = event["_record"].name if logger is None else logger.name
    return event


def _console(out: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=out.isatty(),
        pad_event_to=24,
        exception_formatter=structlog.dev.plain_traceback,  # the rich one prints locals, and with them secrets
    )


def _adopt_standard_logging(out: TextIO, level: int, shared: list[Processor], final: list[Processor]) -> None:
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_add_source, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
