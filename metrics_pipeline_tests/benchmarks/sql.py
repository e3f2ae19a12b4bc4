"""The same as `sql_metrics.py`, under the name that the product's contract has for it."""

from __future__ import annotations

from metrics_pipeline_tests.benchmarks.sql_metrics import main

if __name__ == "__main__":
    main()
