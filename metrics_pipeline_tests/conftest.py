"""Fixtures every part of the suite shares."""

from metrics_pipeline_tests.postgresql import postgresql, postgresql_server

__all__ = ["postgresql", "postgresql_server"]
