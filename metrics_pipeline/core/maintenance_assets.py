"""What the product's care for itself is called."""

from __future__ import annotations

GROUP = "maintenance"

RETENTION = f"{GROUP}/retention"
"""The asset: what was deleted because it is old."""

JOB = "retention"
