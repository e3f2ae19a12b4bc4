"""Fixtures every part of the suite shares."""

from hypothesis import settings

from metrics_pipeline_tests.postgresql import postgresql, postgresql_server

__all__ = ["postgresql", "postgresql_server"]

# Machines are shared: how long an example takes says nothing.
settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")
