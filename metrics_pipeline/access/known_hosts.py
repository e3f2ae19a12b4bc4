"""Host keys in OpenSSH's known_hosts format: who is known, and who is remembered.

A file of one's own or a copy of OpenSSH's, hashed names included (each costs an HMAC a look-up: of
10,000 hashed lines, tens of milliseconds a host). A line that cannot be read is skipped, as
OpenSSH does. Several processes may remember hosts in the same file: what one writes the others
read before they write, and a host has one key, whoever comes first.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from asyncssh import SSHKey, SSHKnownHosts

from metrics_pipeline.access.hosts import SSH_PORT, is_host
from metrics_pipeline.core.errors import ConfigurationError


class Verdict(Enum):
    """What is thought of a key that a host shows."""

    KNOWN = auto()
    REMEMBERED = auto()
    """Nobody knew the host: it is known from now on."""
    UNKNOWN = auto()
    CHANGED = auto()
    """Another key is known of the host."""
    REVOKED = auto()


class HostKeys(NamedTuple):
    """What is known of a host."""

    trusted: frozenset[SSHKey]
    authorities: frozenset[SSHKey]
    """Keys that sign host certificates."""
    revoked: frozenset[SSHKey]


class KnownHosts:
    """One file of host keys. Opening it reads it; ConfigurationError if it may not be read."""

    def __init__(self, path: Path, trust_on_first_use: bool) -> None:
        self.path = path
        self._trust_on_first_use = trust_on_first_use
        self._entries = SSHKnownHosts()
        self._read_to = (0, 0)
        """Inode, and the bytes of it that were read."""
        self._catch_up()

    def keys_of(self, names: Sequence[str], port: int) -> HostKeys:
        """What is known of a host under any of `names` (its address, its host name) and `port`.

        As with OpenSSH, a key that is known without a port is good on any, if none is known there.
        """
        at_port = self._find([host_pattern(name, port) for name in names])
        anywhere = self._find(names)
        return HostKeys(
            at_port.trusted or anywhere.trusted,
            at_port.authorities or anywhere.authorities,
            at_port.revoked | anywhere.revoked,
        )

    def judge(self, names: Sequence[str], port: int, key: SSHKey) -> Verdict:
        """What is thought of `key`; of an unknown host it is remembered if the setting says so."""
        verdict = self._compare(names, port, key)
        if verdict is Verdict.UNKNOWN and self._trust_on_first_use:
            return self._remember(names, port, key)
        return verdict

    def _compare(self, names: Sequence[str], port: int, key: SSHKey) -> Verdict:
        known = self.keys_of(names, port)
        if key in known.revoked:
            return Verdict.REVOKED
        if key in known.trusted:
            return Verdict.KNOWN
        # Known on another port only, it may be another host behind the same address.
        at_port = self._find([host_pattern(name, port) for name in names])
        return Verdict.CHANGED if at_port.trusted else Verdict.UNKNOWN

    def _find(self, patterns: Sequence[str]) -> HostKeys:
        found = [self._entries.match(pattern, "", None) for pattern in patterns if pattern]
        return HostKeys(
            frozenset(key for keys, *_ in found for key in keys),
            frozenset(key for _, keys, *_ in found for key in keys),
            frozenset(key for _, _, keys, *_ in found for key in keys),
        )

    def _remember(self, names: Sequence[str], port: int, key: SSHKey) -> Verdict:
        """Add one line in one write, while no other process can."""
        if not _can_be_written(names[0]):
            return Verdict.UNKNOWN
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._catch_up()
            verdict = self._compare(names, port, key)
            if verdict is not Verdict.UNKNOWN:
                return verdict
            os.write(descriptor, _new_line(descriptor, names[0], port, key))
            self._catch_up()
            return Verdict.REMEMBERED
        finally:
            os.close(descriptor)

    def _catch_up(self) -> None:
        """Read what was added to the file since; all of it if it is another file."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                inode, read_bytes = self._read_to
                if inode != status.st_ino or status.st_size < read_bytes:
                    self._entries, read_bytes = SSHKnownHosts(), 0
                file.seek(read_bytes)
                self._read_to = (status.st_ino, read_bytes + self._add(file.read()))
        except FileNotFoundError:
            self._entries, self._read_to = SSHKnownHosts(), (0, 0)
        except OSError as error:
            raise ConfigurationError(
                str(self.path),
                f"the known host keys cannot be read ({error.strerror})",
                "Make the file readable, or name another in `known_hosts`.",
            ) from error

    def _add(self, lines: bytes) -> int:
        """Take in all `lines`; gives their length."""
        for line in lines.decode("utf-8", errors="replace").splitlines():
            try:
                self._entries.load(line)
            except ValueError:
                continue
        return len(lines)


def host_pattern(name: str, port: int) -> str:
    """How known_hosts names a host: the port only where it is not 22."""
    return name if port == SSH_PORT else f"[{name}]:{port}"


def _can_be_written(name: str) -> bool:
    """Whether a line with `name` would mean that one host and nothing else."""
    return is_host(name) or re.fullmatch("[0-9a-fA-F:.]+", name) is not None


def _new_line(descriptor: int, name: str, port: int, key: SSHKey) -> bytes:
    size = os.fstat(descriptor).st_size
    is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    public = b" ".join(key.export_public_key("openssh").split()[:2])
    return (b"\n" if is_torn else b"") + host_pattern(name, port).encode() + b" " + public + b"\n"
