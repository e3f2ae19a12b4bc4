"""Files as a power cut leaves them: what a process has written since its last sync is gone.

A library that is loaded before libc (LD_PRELOAD) copies a file whenever the process has had it
synced to the disk. A real disk may keep more than that, never less. Names in folders are taken to
be on the disk at once. Linux only.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from metrics_pipeline_tests.servers import require

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Under its inode, for SQLite's file may get another name; whole or not at all. */
static void copy(int synced) {
    const char *folder = getenv("SYNCED_FILES");
    char name[4096], draft[4160], self[64], bytes[65536];
    struct stat about;
    if (!folder || fstat(synced, &about) || !S_ISREG(about.st_mode)) return;
    snprintf(self, sizeof self, "/proc/self/fd/%d", synced);
    snprintf(name, sizeof name, "%s/%lu", folder, (unsigned long) about.st_ino);
    snprintf(draft, sizeof draft, "%s.%d-%d", name, getpid(), synced);
    int from = open(self, O_RDONLY), to = open(draft, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (from < 0 || to < 0) abort();
    for (ssize_t count; (count = read(from, bytes, sizeof bytes)) > 0;)
        if (write(to, bytes, count) != count) abort();
    close(from);
    close(to);
    if (rename(draft, name)) abort();
}

int fsync(int file) {
    int done = ((int (*)(int)) dlsym(RTLD_NEXT, "fsync"))(file);
    if (!done) copy(file);
    return done;
}

int fdatasync(int file) {
    int done = ((int (*)(int)) dlsym(RTLD_NEXT, "fdatasync"))(file);
    if (!done) copy(file);
    return done;
}
"""


@dataclass(frozen=True, slots=True)
class SyncedFiles:
    """What processes with `environment` have had synced."""

    library: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes to watch."""
        return {"LD_PRELOAD": str(self.library), "SYNCED_FILES": str(self.folder)}

    def cut_power(self, database: Path) -> None:
        """Make a SQLite file, and its write-ahead log, what is synced of them.

        Nobody may have it open. The index of the log is gone: SQLite makes it anew.
        """
        for file in (database, database.with_name(f"{database.name}-wal")):
            synced = self.folder / str(file.stat().st_ino) if file.exists() else None
            file.unlink(missing_ok=True)
            if synced is not None and synced.exists():
                shutil.copyfile(synced, file)
        database.with_name(f"{database.name}-shm").unlink(missing_ok=True)


def watch_syncs(folder: Path) -> SyncedFiles:
    """Build the library in `folder`, which must be empty."""
    source, library, copies = folder / "syncs.c", folder / "syncs.so", folder / "synced"
    copies.mkdir()
    source.write_text(SOURCE)
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library)]
    subprocess.run([require("cc"), *options, str(source), "-ldl"], check=True)
    return SyncedFiles(library, copies)
