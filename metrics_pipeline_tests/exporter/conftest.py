"""Fixtures of the exporter's tests."""

from metrics_pipeline_tests.exporter.instance_fixtures import (
    dagster_home,
    dagster_home_template,
    reader,
    runs,
)

__all__ = ["dagster_home", "dagster_home_template", "reader", "runs"]
