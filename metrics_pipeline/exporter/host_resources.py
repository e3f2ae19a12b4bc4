"""What the product takes of the machine that the exporter runs on: processes, files, and room.

Processes are found in /proc (proc(5)) by their environment: those of this product over the same
state directory. In a container that is the exporter alone. What a process used between the last
look at it and its end is not counted. Where there is no /proc (only Linux has it) there are none.

Runs share most of their memory with what they are forked from. So memory is each process's
proportional set size: a page that several have is divided among them. Where that cannot be read it
is the resident set size.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metrics_pipeline.access.environment import STATE_DIR_VARIABLE

PROC = Path("/proc")
ROLES = (
    ("dagster-webserver", "webserver"),
    ("dagster_webserver", "webserver"),
    ("dagster-daemon", "daemon"),
    ("execute_run", "run"),
    ("execute_step", "run"),
    ("spawn_main", "run"),
    ("multiprocessing.forkserver", "run"),
    ("api grpc", "code_server"),
    *(
        (f"{program} {command}", command.replace("-", "_"))
        for program in ("metrics_pipeline", "metrics-pipeline")
        for command in ("daemon", "code-server", "exporter", "gateway", "worker")
    ),
    ("metrics_pipeline simulate", "simulator"),
)
"""What a command line has in it, and what the process then is; the first that fits. Our
code server has its runs forked from a process of Python's multiprocessing, which counts as a run;
Dagster's spawns each."""

_UTIME, _STIME, _STARTTIME, _RSS = 11, 12, 19, 21
"""Places in /proc/PID/stat behind the name of the program, from 0."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

MEMORY_SECONDS = 30.0
"""So often memory is looked at, and that of a new process at once: the kernel walks through all
pages of a process, 5.6 ms for 120 MB, where the rest of a look takes 0.04 ms."""

_Known = tuple[int, str]
"""Process id and start time, which together are one process only."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of one kind take: CPU since the exporter started to look, in seconds."""

    cpu_seconds: float
    resident_bytes: int
    open_files: int


@dataclass(frozen=True, slots=True)
class HostState:
    """What was seen at one look. Sizes in bytes; `databases` are those that are files, by name."""

    processes: Mapping[str, Usage]
    disk_free_bytes: int
    disk_size_bytes: int
    databases: Mapping[str, int]


class HostReader:
    """Looks at the processes over `state_dir`, at its disk, and at the files of `databases`."""

    def __init__(
        self,
        state_dir: Path,
        databases: Mapping[str, Path],
        proc: Path = PROC,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state_dir = state_dir
        self._databases = databases
        self._proc = proc
        self._clock = clock
        self._memory: dict[_Known, int] = {}
        self._forgotten_at = -MEMORY_SECONDS
        self._roles: dict[_Known, str | None] = {}
        self._used: dict[_Known, float] = {}
        self._cpu_seconds: defaultdict[str, float] = defaultdict(float)

    def read(self) -> HostState:
        """Look. Raises OSError if the state directory is not there."""
        disk = shutil.disk_usage(self._state_dir)
        there = {name: path for name, path in self._databases.items() if path.exists()}
        sizes = {name: _size_of(path) for name, path in there.items()}
        return HostState(self._processes(), disk.free, disk.total, sizes)

    def _processes(self) -> dict[str, Usage]:
        resident: Counter[str] = Counter()
        files: Counter[str] = Counter()
        roles, used, memory = self._roles, self._used, self._recent_memory()
        self._roles, self._used, self._memory = {}, {}, {}
        for folder in self._proc.glob("[0-9]*"):
            try:
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                known = int(folder.name), stat[_STARTTIME]
                role = roles[known] if known in roles else self._role_of(folder)
                self._roles[known] = role
                if role is None:
                    continue
                files[role] += sum(1 for _ in (folder / "fd").iterdir())
            except OSError:
                continue  # it has ended, or is somebody else's
            self._memory[known] = memory.get(known) or _memory_of(folder, stat)
            resident[role] += self._memory[known]
            self._used[known] = (int(stat[_UTIME]) + int(stat[_STIME])) / _TICKS_PER_SECOND
            self._cpu_seconds[role] += self._used[known] - used.get(known, 0.0)
        return {
            role: Usage(seconds, resident[role], files[role])
            for role, seconds in self._cpu_seconds.items()
        }

    def _recent_memory(self) -> Mapping[_Known, int]:
        """All at once is forgotten, as what several share is divided among those there are."""
        now = self._clock()
        if now - self._forgotten_at < MEMORY_SECONDS:
            return self._memory
        self._forgotten_at = now
        return {}

    def _role_of(self, folder: Path) -> str | None:
        """What the process in `folder` is, or None if it is none of this product's."""
        ours = f"{STATE_DIR_VARIABLE}={self._state_dir}".encode()
        if int(folder.name) != os.getpid() and ours not in _parts(folder / "environ"):
            return None
        command = b" ".join(_parts(folder / "cmdline")).decode(errors="replace")
        return next((role for part, role in ROLES if part in command), None)


def _memory_of(folder: Path, stat: Sequence[str]) -> int:
    with suppress(OSError):
        for line in (folder / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return int(stat[_RSS]) * _PAGE_BYTES


def _parts(file: Path) -> list[bytes]:
    return file.read_bytes().split(b"\0")


def _size_of(path: Path) -> int:
    """Bytes of a file with its write-ahead log, or of all files in a folder."""
    size = 0
    for file in _files_of(path):
        try:
            size += file.stat().st_size
        except FileNotFoundError:
            continue  # there is no log, or it was just written back
    return size


def _files_of(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from path.rglob("*")
    else:
        yield from (path, path.with_name(f"{path.name}-wal"))
