"""Real SNMP agents for tests: Debian's `snmpd` and PyPI's `snmpsim`, each on a port of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from metrics_pipeline.access.snmp_usm import User
from metrics_pipeline_tests import servers

AUTHENTICATION_PASSWORD, PRIVACY_PASSWORD = "an authentication password", "a privacy password"
COMMUNITY = "public"

_AUTHENTICATION = {
    "md5": "MD5",
    "sha1": "SHA",
    "sha224": "SHA-224",
    "sha256": "SHA-256",
    "sha384": "SHA-384",
    "sha512": "SHA-512",
}
_PRIVACY = {"des": "DES", "aes128": "AES", "aes256": "AES-256", "aes256c": "AES-256-C"}


def user(authentication: str | None = None, privacy: str | None = None) -> User:
    """The user of these protocols whom `snmpd` knows when it is given it."""
    return User(
        f"{authentication}-{privacy}",
        authentication,
        AUTHENTICATION_PASSWORD if authentication else "",
        privacy,
        PRIVACY_PASSWORD if privacy else "",
    )


ALL_USERS = [
    user(),
    *(user(a, p) for a in _AUTHENTICATION for p in (None, *_PRIVACY)),
]


@contextmanager
def snmpd(folder: Path, users: Sequence[User] = (), lines: Sequence[str] = ()) -> Iterator[int]:
    """net-snmp's agent with its state in `folder`; gives its port on 127.0.0.1.

    It knows the community `public`, the `users`, and what `lines` of snmpd.conf(5) say.
    """
    program = servers.require("snmpd")
    configuration = folder / "snmpd.conf"
    configuration.write_text(
        "\n".join(
            [
                "agentaddress udp:127.0.0.1:0",
                f"rocommunity {COMMUNITY} 127.0.0.1",
                *(line for known in users for line in _user_lines(known)),
                *lines,
                "",
            ]
        )
    )
    state = f"SNMP_PERSISTENT_DIR={folder}"
    argv = [program, "-f", "-C", "-c", str(configuration), "-Lo", "-m", "", "-M", ""]
    with servers.running(["env", state, *argv]) as pid:
        yield _udp_port(pid)


@contextmanager
def snmpsim(folder: Path, recordings: Path) -> Iterator[int]:
    """PyPI's simulator with its index in `folder`; gives its port on 127.0.0.1.

    `recordings` holds `COMMUNITY.snmprec`. Its lighter sibling `snmpsim-command-responder-lite`
    does not start on pysnmp 7.1.
    """
    name = "snmpsim-command-responder"
    argv = [
        "env",
        "SNMPSIM_ALLOW_ROOT=true",  # it would drop to a user who cannot read the test's folders
        shutil.which(name, path=Path(sys.executable).parent) or servers.require(name),
        f"--data-dir={recordings}",
        f"--cache-dir={folder}",
        "--agent-udpv4-endpoint=127.0.0.1:0",
        "--logging-method=stdout",
        "--log-level=error",
    ]
    with servers.running(argv) as pid:
        yield _udp_port(pid)


def recordings() -> Path:
    """Where the recorded walks of `snmpsim-data` are."""
    import snmpsim_data

    return Path(snmpsim_data.__file__).parent / "data"


def net_snmp(command: str, *arguments: str) -> str:
    """What a command of net-snmp prints: another witness of what an agent says."""
    argv = [servers.require(command), *arguments]
    environment = {**os.environ, "MIBS": "", "MIBDIRS": ""}
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


def _user_lines(known: User) -> list[str]:
    if known.authentication is None:
        return [f"createUser {known.name}", f"rouser {known.name} noauth"]
    words = [known.name, _AUTHENTICATION[known.authentication], f'"{AUTHENTICATION_PASSWORD}"']
    if known.privacy is None:
        return [f"createUser {' '.join(words)}", f"rouser {known.name} auth"]
    words += [_PRIVACY[known.privacy], f'"{PRIVACY_PASSWORD}"']
    return [f"createUser {' '.join(words)}", f"rouser {known.name} priv"]


def _udp_port(pid: int) -> int:
    """The port on which process `pid` takes UDP over IPv4 (from /proc, so on Linux)."""
    found: list[int] = []

    def look() -> bool:
        sockets = {_link(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
        found.extend(
            int(row[1].rpartition(":")[2], base=16)
            for row in rows
            if f"socket:[{row[9]}]" in sockets and row[1].startswith("0100007F")
        )
        return bool(found)

    servers.wait_until(look, f"process {pid} takes UDP")
    return found[0]


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:  # closed in the meantime
        return ""
