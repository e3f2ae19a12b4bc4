"""What the platform's samples are called: their assets, the sensor, and the counter's labels."""

from __future__ import annotations

GROUP = "platform"
SENSOR = "platform_samples"


def sampled_asset(source: str) -> str:
    """The key of the asset that a source's samples are; also the name of their snapshot."""
    return f"{GROUP}/{source}"
