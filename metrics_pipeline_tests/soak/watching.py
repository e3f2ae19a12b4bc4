"""Memory, open files and threads of the processes of `make run`, and the sizes of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MB = 1e6
KINDS = {
    "webserver": "dagster_webserver",
    "daemon": "metrics_pipeline daemon",
    "a run": "multiprocessing.forkserver",
    "code server": "metrics_pipeline code-server",
    "exporter": "metrics_pipeline exporter",
    "gateway": "metrics_pipeline gateway",
    "simulators": "simulate",
    "make run": "metrics_pipeline run",
}
RUN = "a run"
"""Comes and goes: it has no trend."""

TEMPLATE = "template of runs"
"""What runs are forked from. It has their command line and lives as long as the code server."""

EVENT_LOG = "event log"
FILES = {
    EVENT_LOG: ("dagster/history",),
    "Dagster's schedules": ("dagster/schedules",),
    "what runs printed": ("dagster/storage",),
    "store": ("embedded",),
    "operational database": ("operational",),
    "inventory": ("inventory",),
    "spool": ("spool",),
    "logs": ("logs",),
}
OTHER = "other files"


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of the processes of one kind: their number, MB, files, threads.

    In `pss_mb` pages that others have as well are shared out. `anonymous_mb` is of that what is no
    file's, so it does not change with who else runs the same Python.
    """

    processes: int = 0
    rss_mb: float = 0.0
    pss_mb: float = 0.0
    anonymous_mb: float = 0.0
    files: int = 0
    threads: int = 0

    def plus(self, other: Footprint) -> Footprint:
        """Both."""
        return Footprint(
            self.processes + other.processes,
            self.rss_mb + other.rss_mb,
            self.pss_mb + other.pss_mb,
            self.anonymous_mb + other.anonymous_mb,
            self.files + other.files,
            self.threads + other.threads,
        )


def kind_of(command: str) -> str | None:
    """What runs a command line; None for what is no process of ours to watch."""
    return next((kind for kind, part in KINDS.items() if part in command), None)


def kind_of_process(pid: int) -> str | None:
    """The same of a process, and what runs are forked from for itself. Raises OSError when it has
    ended."""
    kind = kind_of(command_of(pid))
    if kind == RUN and kind_of(command_of(parent_of(pid))) != RUN:
        return TEMPLATE
    return kind


def command_of(pid: int) -> str:
    """The command line of a process. Raises OSError when it has ended."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def footprints(group_leader: int) -> Mapping[str, Footprint]:
    """By kind, of the process `group_leader` and all that came of it."""
    found: dict[str, Footprint] = {}
    for pid in descendants(group_leader):
        with suppress(OSError):  # it has ended meanwhile
            kind = kind_of_process(pid)
            if kind is not None:
                found[kind] = found.get(kind, Footprint()).plus(footprint(pid))
    return found


def footprint(pid: int) -> Footprint:
    """Of one process. Raises OSError when it has ended."""
    memory = Path(f"/proc/{pid}/smaps_rollup").read_text()
    status = Path(f"/proc/{pid}/status").read_text()
    return Footprint(
        1,
        _kb(memory, "Rss") * 1024 / MB,
        _kb(memory, "Pss") * 1024 / MB,
        _kb(memory, "Pss_Anon") * 1024 / MB,
        sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        _kb(status, "Threads"),
    )


def parent_of(pid: int) -> int:
    """The process that started it. Raises OSError when it has ended."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def descendants(pid: int) -> Iterable[int]:
    """`pid`, and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                children.setdefault(parent_of(int(entry.name)), []).append(int(entry.name))
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += children.get(one, [])


def file_sizes(state: Path) -> Mapping[str, float]:
    """MB in the state directory, by what is in the files."""
    sizes = dict.fromkeys((*FILES, OTHER), 0.0)
    for path in state.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                name = str(path.relative_to(state))
                kind = next((k for k, starts in FILES.items() if name.startswith(starts)), OTHER)
                sizes[kind] += path.stat().st_size / MB
    return sizes


def _kb(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    if found is None:
        raise OSError(f"/proc says nothing of {name}: the process has ended")
    return int(found[1])
