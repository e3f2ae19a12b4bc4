"""Host keys in OpenSSH's known_hosts format: who is known, and who is remembered.

A file of one's own or a copy of OpenSSH's, hashed names included (each costs an HMAC a look-up: of
10,000 hashed lines, tens of milliseconds a host). A line that cannot be read is skipped, as
OpenSSH does. Several processes may remember hosts in the same file: what one writes the others
read before they write, and a host has one key, whoever comes first.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from asyncssh import SSHKey, SSHKnownHosts

from metrics_pipeline.core.errors import ConfigurationError

SSH_PORT = 22


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

    trusted: tuple[SSHKey, ...]
    authorities: tuple[SSHKey, ...]
    """Keys that sign host certificates."""
    revoked: tuple[SSHKey, ...]


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
        """All that is known of a host under any of `names` (its address, its host name)."""
        found = [self._entries.match(name, "", _unusual(port)) for name in names if name]
        trusted, authorities, revoked = (
            tuple(dict.fromkeys(key for each in found for key in each[part])) for part in range(3)
        )
        return HostKeys(trusted, authorities, revoked)

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
        return Verdict.CHANGED if known.trusted else Verdict.UNKNOWN

    def _remember(self, names: Sequence[str], port: int, key: SSHKey) -> Verdict:
        """Add one line in one write, while no other process can."""
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


def _unusual(port: int) -> int | None:
    return None if port == SSH_PORT else port


def _new_line(descriptor: int, name: str, port: int, key: SSHKey) -> bytes:
    size = os.fstat(descriptor).st_size
    is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    public = b" ".join(key.export_public_key("openssh").split()[:2])
    return (b"\n" if is_torn else b"") + host_pattern(name, port).encode() + b" " + public + b"\n"
