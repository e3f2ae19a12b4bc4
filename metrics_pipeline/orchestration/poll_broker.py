"""What Celery is told, by who hands polls out and by who takes them: both say the same.

Redis hands a message to one worker and keeps it until that one says that it is done. The facts are
those of kombu 5.7 (`transport/redis.py`) and Celery 5.7 (docs, "Configuration and defaults").
"""

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from metrics_pipeline.access.redis_address import read_redis_url
from metrics_pipeline.settings import WorkersSettings

LOOKS_PER_LOSS = 4
"""So often within `lost_after_seconds` a worker says that it lives, and looks for lost polls."""

MUTEX_SECONDS = 10
"""A worker that died while it looked for lost polls keeps others from looking for so long."""

RESULT_SECONDS = 600
"""A run takes what came of a poll within a second or two, and Celery does not delete it then."""

PATIENCE = {"max_retries": 20, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.5}
"""How a run asks again for what came of a poll while Redis is away: for 9 s, then it fails."""

CONNECT_SECONDS = 5
CHILD_START_SECONDS = 60
"""Celery's own 4 s are little for a busy machine."""

POLLS_PER_CHILD = 200
"""Then a process is replaced: Dagster's task opens an instance for each poll and closes none."""


def broker_options(workers: WorkersSettings, longest_seconds: int) -> dict[str, Any]:
    """Arguments of Celery's app; the address holds a password. ConfigurationError if it is none.

    A poll that takes `longest_seconds` is ended with its process.
    """
    url = read_redis_url(workers.broker)
    return {
        "broker": url,
        "backend": url,
        "config_source": {
            **_redelivery(workers),
            **_encryption(url),
            "task_time_limit": longest_seconds,
            "result_expires": RESULT_SECONDS,
            "result_backend_transport_options": {
                "global_keyprefix": workers.key_prefix,
                "retry_policy": PATIENCE,
            },
            "redis_socket_connect_timeout": CONNECT_SECONDS,
            "worker_prefetch_multiplier": 1,
            "worker_max_tasks_per_child": POLLS_PER_CHILD,
            "worker_proc_alive_timeout": CHILD_START_SECONDS,
            "worker_hijack_root_logger": False,
            "worker_redirect_stdouts": False,
            "broker_connection_retry_on_startup": True,
            "broker_connection_max_retries": None,
        },
    }


def _redelivery(workers: WorkersSettings) -> Mapping[str, Any]:
    """A poll is done when it is done, not when a worker has taken it."""
    look_seconds = workers.lost_after_seconds / LOOKS_PER_LOSS
    return {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "broker_transport_options": {
            "global_keyprefix": workers.key_prefix,
            "visibility_timeout": workers.lost_after_seconds,
            "unacked_restore_interval": look_seconds,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": MUTEX_SECONDS,
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_keepalive": True,
            # Dagster's own (dagster_celery/defaults.py), which these take the place of.
            "max_retries": 3,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
    }


def _encryption(url: str) -> Mapping[str, Any]:
    """With rediss:// the certificate is checked; Celery wants to be told."""
    if urlsplit(url).scheme != "rediss":
        return {}
    checked = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    return {"broker_use_ssl": checked, "redis_backend_use_ssl": checked}
