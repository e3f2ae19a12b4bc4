"""The real PostgreSQL, for the tests of docker/."""

from metrics_pipeline_tests.postgresql import postgresql, postgresql_server

__all__ = ["postgresql", "postgresql_server"]
