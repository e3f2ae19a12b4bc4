"""The limit of this process's open files (ulimit -n), raised for who opens many sockets at once.

Most systems start a process with 1024, and let it have hundreds of times that if it asks.
"""

from __future__ import annotations

import resource
from contextlib import suppress

OTHERS = 4096
"""What else a process may have open: other probes' sockets, databases, logs."""


def allow_open_files(count: int) -> None:
    """Let `count` more files than usual be open, or as many as the system allows; never fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHERS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    # macOS has another limit, which is not told here (kern.maxfilesperproc).
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
