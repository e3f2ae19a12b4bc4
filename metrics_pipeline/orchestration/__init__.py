"""Everything Dagster: assets, schedules, the IO manager. No other package imports Dagster, apart
from `definitions.py` and the exporter's instance reader.

`from __future__ import annotations` breaks Dagster's annotated contexts: it is not used here.
"""
