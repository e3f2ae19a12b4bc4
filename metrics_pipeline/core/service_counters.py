"""What services say of themselves on their `/health` pages (CONTRACTS section 4)."""

from __future__ import annotations

from collections.abc import Mapping

HEALTHY = "healthy"
"""The field that is 1 while a service answers as it should, and 0 otherwise."""

KNOWN_COUNTERS: Mapping[str, Mapping[str, str]] = {
    "ingest": {
        "messages_received": "Messages that came in since the service started.",
        "messages_written": "Messages that were stored since the service started.",
        "messages_rejected": "Messages that were refused since the service started.",
        "queue_depth": "Messages that wait to be stored.",
    },
    "evaluator": {
        "rules_evaluated": "Rules that were evaluated since the service started.",
        "alerts_created": "Alerts that were raised since the service started.",
    },
    "dispatcher": {
        "alerts_processed": "Alerts that were looked at since the service started.",
        "routes_matched": "Routes that alerts were sent on since the service started.",
    },
    "delivery": {
        "jobs_succeeded": "Deliveries that succeeded since the service started.",
        "jobs_failed": "Deliveries that were given up since the service started.",
        "jobs_pending": "Deliveries that are still to be made.",
    },
}
"""The counters of each service of the platform, and what they mean."""

WAITING = frozenset({"queue_depth", "jobs_pending"})
"""Those of them that fall as well; the others fall only when their service starts again."""
