"""What Redis refuses, or does not answer, in words for an operator."""

from __future__ import annotations

from metrics_pipeline.access.one_line import one_line
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.redaction import without_secrets
from metrics_pipeline.events.settings import RedisStreamSettings
from metrics_pipeline.events.transport import TransportUnavailable

EXPECTED_URL = (
    "expected redis://user:password@host:6379/0, rediss://… or unix://path; it is not shown here, "
    "as it may hold a password"
)
FIX_CONNECTION = "Check that Redis runs, its address, and events.transport.timeout_seconds."
FIX_RIGHTS = "Check user and password in the address, and what that user may do (ACL LIST)."
FIX_KEY = "Name another events.transport.stream, or delete what is there."
FIX_SERVER = "Look at the Redis server: its memory, its role, its log."

REFUSES_WHO_ASKS = ("NOAUTH", "WRONGPASS", "NOPERM")


def no_address(settings: RedisStreamSettings) -> ConfigurationError:
    """For an address that is none."""
    problem = f"it is no address of Redis: {EXPECTED_URL}"
    return ConfigurationError(str(settings.url), problem, "Correct it and try again.")


def unavailable(
    name: str, error: Exception, *, is_connection: bool, is_right: bool = False
) -> TransportUnavailable:
    """For `error` of the server called `name`; of which kind it is, the client knows."""
    said = without_secrets(one_line(error)) or type(error).__name__
    if is_right or said.startswith(REFUSES_WHO_ASKS):
        fix = FIX_RIGHTS
    elif "WRONGTYPE" in said:
        fix = FIX_KEY
    else:
        fix = FIX_CONNECTION if is_connection else FIX_SERVER
    return TransportUnavailable(name, said.rstrip("."), fix)
