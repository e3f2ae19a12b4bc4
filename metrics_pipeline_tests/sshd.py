"""OpenSSH's own server for tests: a high port, keys of its own, the account that runs the tests."""

from __future__ import annotations

import getpass
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from metrics_pipeline.stack.ports import LOOPBACK, find_free_port
from metrics_pipeline_tests.servers import require, running

PRIVILEGE_SEPARATION_FOLDER = Path("/run/sshd")
"""Where Debian's sshd insists on an empty folder of root's."""


@dataclass(frozen=True, slots=True)
class Sshd:
    """A server that lets `user` in with `user_key`."""

    port: int
    user: str
    user_key: Path
    known_hosts: Path
    pid: int


@contextmanager
def sshd(folder: Path, *, key_type: str = "ed25519", options: Sequence[str] = ()) -> Iterator[Sshd]:
    """OpenSSH's server on loopback, its files in `folder`; `options` are lines of sshd_config.

    Of what it knows more than once, the first line counts, as sshd_config(5) has it: `options`
    come first.
    """
    program = require("sshd")
    if getpass.getuser() == "root":
        PRIVILEGE_SEPARATION_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    host_key, user_key = make_key(folder / "host_key", key_type), make_key(folder / "user_key")
    port = find_free_port()
    config = folder / "sshd_config"
    config.write_text("\n".join([*options, *_lines(folder, host_key, port)]) + "\n")
    with running([program, "-D", "-e", "-f", str(config)], lambda: _answers(port)) as pid:
        known_hosts = folder / "known_hosts"
        public = " ".join(_public(host_key).split()[:2])
        known_hosts.write_text(f"[{LOOPBACK}]:{port} {public}\n")
        yield Sshd(port, getpass.getuser(), user_key, known_hosts, pid)


def _lines(folder: Path, host_key: Path, port: int) -> list[str]:
    authorized = folder / "authorized_keys"
    if not authorized.exists():
        authorized.write_text(_public(folder / "user_key"))
    return [
        f"Port {port}",
        f"ListenAddress {LOOPBACK}",
        f"HostKey {host_key}",
        f"AuthorizedKeysFile {authorized}",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin yes",
        "MaxStartups 1000",
        "LogLevel ERROR",
    ]


def make_key(path: Path, key_type: str = "ed25519", passphrase: str = "") -> Path:
    """A new private key at `path`, and its public one beside it."""
    argv = [require("ssh-keygen"), "-q", "-t", key_type, "-N", passphrase, "-f", str(path)]
    subprocess.run(argv, check=True)
    return path


def _public(key: Path) -> str:
    return key.with_name(key.name + ".pub").read_text()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
