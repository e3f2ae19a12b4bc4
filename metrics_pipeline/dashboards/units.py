"""Units by the identifiers that Grafana knows them by.

From Grafana's `packages/grafana-data/src/valueFormats/categories.ts`.
"""

from __future__ import annotations

BITS_PER_SECOND = "bps"
BYTES = "bytes"
BYTES_PER_SECOND = "Bps"
CELSIUS = "celsius"
COUNT = "short"
DECIBEL = "dB"
DECIBEL_MILLIWATT = "dBm"
MILLISECONDS = "ms"
PER_SECOND = "cps"
PERCENT = "percent"
SECONDS = "s"
SHARE = "percentunit"
TEXT = "string"
