"""Fixtures of the doctor's tests."""

from metrics_pipeline_tests.exporter.instance_fixtures import (
    dagster_home,
    dagster_home_template,
    runs,
)

__all__ = ["dagster_home", "dagster_home_template", "runs"]
