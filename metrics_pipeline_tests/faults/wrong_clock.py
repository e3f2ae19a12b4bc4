"""A clock of the day that can be set, for processes that are started with it.

A library that is loaded before libc (LD_PRELOAD) adds seconds to what the kernel says, as many as
a file that all of them map has, and takes them off again where a deadline is waited for.
CLOCK_MONOTONIC stays, as it does when a machine's clock is set. Debian's libfaketime was tried
(0.9.10): under it Python 3.11's `time.sleep` fails with EINVAL. Linux only.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metrics_pipeline_tests.servers import require

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((typeof(&name)) dlsym(RTLD_NEXT, #name))
#define OF_THE_DAY 1000000000 /* No machine has been up for so many seconds. */

static volatile int64_t *wrong_seconds;

__attribute__((constructor)) static void map_file(void) {
    const char *name = getenv("WRONG_SECONDS_FILE");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(0, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) wrong_seconds = page;
    close(file);
}

static int64_t wrong(void) { return wrong_seconds ? *wrong_seconds : 0; }

static struct timespec right(const struct timespec *deadline) {
    struct timespec found = *deadline;
    if (found.tv_sec > OF_THE_DAY) found.tv_sec -= wrong();
    return found;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static typeof(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += wrong();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void) zone;
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline) {
    struct timespec until = right(deadline);
    return REAL(pthread_cond_timedwait)(condition, mutex, &until);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline) {
    struct timespec until = right(deadline);
    return REAL(sem_timedwait)(semaphore, &until);
}

long syscall(long number, ...) {
    long each[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) each[i] = va_arg(rest, long);
    va_end(rest);
    struct timespec until;
    if (number == SYS_futex && (each[1] & FUTEX_CLOCK_REALTIME) && each[3]) {
        until = right((const struct timespec *) each[3]);
        each[3] = (long) &until;
    }
    return REAL(syscall)(number, each[0], each[1], each[2], each[3], each[4], each[5]);
}
"""


@dataclass(frozen=True, slots=True)
class WrongClock:
    """The clock of all processes with `environment`; right at first."""

    library: Path
    file: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """Of those processes."""
        return {"LD_PRELOAD": str(self.library), "WRONG_SECONDS_FILE": str(self.file)}

    def set(self, wrong_seconds: int) -> None:
        """From now on it is ahead by so much, or behind."""
        descriptor = os.open(self.file, os.O_WRONLY)
        try:
            os.pwrite(descriptor, struct.pack("q", wrong_seconds), 0)
        finally:
            os.close(descriptor)


def make_wrong_clock(folder: Path) -> WrongClock:
    """Build the library in `folder`, which must be empty."""
    source, library, file = folder / "clock.c", folder / "clock.so", folder / "wrong_seconds"
    source.write_text(SOURCE)
    file.write_bytes(struct.pack("q", 0))
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library)]
    subprocess.run([require("cc"), *options, str(source), "-ldl"], check=True)
    return WrongClock(library, file)
