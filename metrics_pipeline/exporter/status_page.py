"""How the status page looks: HTML and a stylesheet, without a script and without the outside.

Made when somebody looks, from memory. Whatever it shows is escaped by the template engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources

from jinja2 import Environment, StrictUndefined

from metrics_pipeline.exporter.refresher import Known
from metrics_pipeline.exporter.status import take_stock

RELOAD_SECONDS = 15
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

MINUTE, HOUR, DAY = 60, 3600, 86400
UNITS = ((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min"), (MINUTE, "min", 1, "s"))


@dataclass(frozen=True, slots=True)
class StatusPage:
    """With a link to Dagster's UI where its address is given, without a slash at its end."""

    dagster_url: str | None = None
    clock: Callable[[], float] = time.time

    def render(self, known: Known) -> str:
        """The page for what is `known`."""
        return TEMPLATE.render(
            status=take_stock(known, self.clock()),
            dagster_url=self.dagster_url,
            reload_seconds=RELOAD_SECONDS,
        )


def duration(seconds: float) -> str:
    """A time span in two units at most: `3 min 20 s`."""
    if seconds < MINUTE:
        return f"{int(seconds)} s"
    whole = int(seconds)
    size, name, part, part_name = next(unit for unit in UNITS if whole >= unit[0])
    rest = whole % size // part
    return f"{whole // size} {name} {rest} {part_name}" if rest else f"{whole // size} {name}"


def moment(seconds: float) -> str:
    """A time in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def number(value: float) -> str:
    """With at most one decimal, and a space at the thousands."""
    shown = f"{value:,.1f}".removesuffix(".0")
    return shown.replace(",", " ")


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


STYLE = _read("status.css")

ENVIRONMENT = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
ENVIRONMENT.filters.update(duration=duration, moment=moment, number=number)
TEMPLATE = ENVIRONMENT.from_string(_read("status.html.jinja"))
