"""Fixtures every part of the suite shares."""

import signal

from hypothesis import settings

from metrics_pipeline_tests.postgresql import postgresql, postgresql_server

__all__ = ["postgresql", "postgresql_server"]

# Machines are shared: how long an example takes says nothing.
settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")

# A shell lets its background jobs ignore SIGINT. Dagster makes SIGTERM the same as SIGINT after
# each run in process, and children inherit what is ignored: none could be ended with SIGTERM.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
