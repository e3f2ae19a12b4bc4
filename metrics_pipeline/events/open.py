"""Opens the transport that the settings name."""

from __future__ import annotations

from metrics_pipeline.events.json_lines import JsonLines
from metrics_pipeline.events.log_lines import LogLines
from metrics_pipeline.events.settings import JsonLinesSettings, LogSettings, TransportSettings
from metrics_pipeline.events.transport import Transport


def open_transport(settings: TransportSettings) -> Transport:
    """Connects at first use."""
    match settings:
        case JsonLinesSettings():
            return JsonLines(settings)
        case LogSettings():
            return LogLines()
        case _:
            # Whose import who has no Redis need not wait for.
            from metrics_pipeline.events.redis_stream import RedisStream  # noqa: PLC0415

            return RedisStream(settings)
