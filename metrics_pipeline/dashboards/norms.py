"""From which value on a panel is yellow, and from which red.

A norm of the whole product (how old a count may be) is here, once; one of a single panel is there.
"""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

GREEN, YELLOW, RED = "green", "yellow", "red"


@dataclass(frozen=True, slots=True)
class Norm:
    """Colours by the value they begin at, in the unit of the panel, the lowest first."""

    lowest: str
    steps: tuple[tuple[float, str], ...]

    def build(self) -> builders.ThresholdsConfig:
        """As Grafana takes it: the first colour begins at no value, which is minus infinity."""
        first = models.Threshold(value=None, color=self.lowest)
        others = (models.Threshold(value=value, color=color) for value, color in self.steps)
        return (
            builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps([first, *others])
        )


def at_most(well: float, ill: float) -> Norm:
    """Green below `well`, red from `ill` on, yellow between."""
    return Norm(GREEN, ((well, YELLOW), (ill, RED)))


def at_least(well: float, ill: float) -> Norm:
    """Green from `well` on, red below `ill`, yellow between."""
    return Norm(RED, ((ill, YELLOW), (well, GREEN)))


NONE_AT_ALL = Norm(GREEN, ((1, RED),))
"""For what must not happen: red from 1 on."""

ANY_RATE = Norm(GREEN, ((1e-9, RED),))
"""The same of a rate, or of a share: red above 0."""

UP = Norm(RED, ((1, GREEN),))
"""Of 1 and 0."""

USE_PERCENT = at_most(80, 90)
"""Processors, memory, disks."""

CONNECTIONS_PERCENT = at_most(70, 80)

CONNECTED_PERCENT = at_least(95, 80)

SCORE = at_least(90, 70)
"""Of the health score and its components, 0 to 100."""

AGE_IN_INTERVALS = at_most(2, 3)
"""Of what is collected again and again: one may be missed, not two."""

AGE_OF_HEARTBEAT_SECONDS = at_most(120, 180)
AGE_OF_TELEMETRY_SECONDS = at_most(60, 300)
AGE_OF_PAGE_SECONDS = at_most(30, 60)
AGE_OF_LEASE_SECONDS = at_most(0, 60)
AGE_OF_SPOOL_SECONDS = at_most(60, 300)
SPOOL_PERCENT = at_most(50, 80)
LAG_SECONDS = at_most(30, 60)

WORTH_A_LOOK = Norm(GREEN, ((1, YELLOW),))
"""For what is an alert only when it rises."""
