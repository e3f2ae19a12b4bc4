"""Target: files of host keys in OpenSSH's format."""

from __future__ import annotations

import tempfile
from pathlib import Path

import asyncssh
import asyncssh.known_hosts
import asyncssh.pattern

from metrics_pipeline_tests.fuzz.runner import fuzz, instrument, instrumented

with instrumented():
    from metrics_pipeline.access.known_hosts import KnownHosts, Verdict

KEY, OTHER = (asyncssh.generate_private_key("ssh-ed25519").convert_to_public() for _ in range(2))
LINE = KEY.export_public_key("openssh").decode().strip()
FILE = Path(tempfile.mkdtemp(prefix="fuzz-known-hosts-")) / "known_hosts"

for module in (asyncssh.known_hosts, asyncssh.pattern):
    instrument(module)


def check(data: bytes) -> None:
    """Nothing is raised, and what is remembered on first use is known afterwards."""
    FILE.write_bytes(data)
    verdict = KnownHosts(FILE, trust_on_first_use=True).judge(["192.0.2.1", "host"], 2022, OTHER)
    if verdict is Verdict.REMEMBERED:
        again = KnownHosts(FILE, trust_on_first_use=False)
        assert again.judge(["192.0.2.1"], 2022, OTHER) is Verdict.KNOWN
    for port in (22, 2022):
        KnownHosts(FILE, trust_on_first_use=False).judge(["host", "192.0.2.1"], port, KEY)


def seeds() -> list[bytes]:
    """Lines of each form."""
    hashed = "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg="
    hosts = ("host", "[192.0.2.1]:2022", "h?st,!bad,*.example", hashed, "192.0.2.0/24")
    lines = [f"{host} {LINE}\n" for host in hosts]
    lines += [f"@revoked * {LINE}\n", f"@cert-authority * {LINE}\n", "# a remark\n", "host ssh-rsa"]
    return [line.encode() for line in lines] + ["".join(lines).encode()]


if __name__ == "__main__":
    fuzz(check, seeds())
