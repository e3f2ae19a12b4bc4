"""Host keys in OpenSSH's format: who is known, who changed, and who is remembered."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import pytest

from metrics_pipeline.access.known_hosts import KnownHosts, Verdict
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline_tests.servers import require

HOST = "10.0.0.1"
KEY, OTHER, RSA = (
    asyncssh.generate_private_key(kind).convert_to_public()
    for kind in ("ssh-ed25519", "ssh-ed25519", "ecdsa-sha2-nistp256")
)


def line(pattern: str, key: asyncssh.SSHKey = KEY) -> str:
    return f"{pattern} {key.export_public_key().decode()}"


def known_hosts(folder: Path, *lines: str, trust_on_first_use: bool = False) -> KnownHosts:
    path = folder / "known_hosts"
    path.write_text("".join(lines))
    return KnownHosts(path, trust_on_first_use)


@pytest.mark.parametrize("pattern", [HOST, f"db,{HOST}", "10.0.0.*", f"[{HOST}]:22,{HOST}"])
def test_a_host_is_known_by_its_name_or_a_pattern(tmp_path: Path, pattern: str) -> None:
    known = known_hosts(tmp_path, "# a comment\n", "\n", line(pattern))
    assert known.judge((HOST,), 22, KEY) is Verdict.KNOWN
    assert known.judge((HOST,), 22, OTHER) is Verdict.CHANGED
    assert known.judge(("10.1.0.1",), 22, KEY) is Verdict.UNKNOWN


def test_names_that_openssh_has_hashed_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(line(HOST) + line(f"[{HOST}]:2222", OTHER))
    subprocess.run([require("ssh-keygen"), "-q", "-H", "-f", str(path)], check=True)
    known = KnownHosts(path, trust_on_first_use=False)
    assert HOST not in path.read_text()
    assert known.judge((HOST,), 22, KEY) is Verdict.KNOWN
    assert known.judge((HOST,), 2222, OTHER) is Verdict.KNOWN
    assert known.judge((HOST,), 2222, RSA) is Verdict.CHANGED


def test_any_of_a_hosts_names_will_do(tmp_path: Path) -> None:
    known = known_hosts(tmp_path, line("db.example"))
    assert known.judge((HOST, "db.example"), 22, KEY) is Verdict.KNOWN


def test_another_key_on_another_port_is_another_host_and_not_a_change(tmp_path: Path) -> None:
    known = known_hosts(tmp_path, line(HOST), line(f"[{HOST}]:2222", OTHER))
    assert known.judge((HOST,), 2200, KEY) is Verdict.KNOWN
    assert known.judge((HOST,), 2200, OTHER) is Verdict.UNKNOWN
    assert known.judge((HOST,), 2222, KEY) is Verdict.CHANGED


def test_a_revoked_key_is_never_known(tmp_path: Path) -> None:
    known = known_hosts(tmp_path, line(HOST), line("@revoked *"), trust_on_first_use=True)
    assert known.judge((HOST,), 22, KEY) is Verdict.REVOKED


def test_lines_that_cannot_be_read_are_skipped(tmp_path: Path) -> None:
    broken = ["torn\n", f"{HOST} ssh-ed25519 AAAA\n", "@marker a b\n", "|1|x|y ssh-rsa AAAA\n"]
    known = known_hosts(tmp_path, *broken, "\xff\n", line(HOST))
    assert known.judge((HOST,), 22, KEY) is Verdict.KNOWN


def test_without_trust_on_first_use_nothing_is_written(tmp_path: Path) -> None:
    known = KnownHosts(tmp_path / "none", trust_on_first_use=False)
    assert known.judge((HOST,), 22, KEY) is Verdict.UNKNOWN
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("port", [22, 2222])
def test_what_is_remembered_openssh_finds(tmp_path: Path, port: int) -> None:
    path = tmp_path / "folder/known_hosts"
    known = KnownHosts(path, trust_on_first_use=True)
    assert known.judge((HOST, "db"), port, KEY) is Verdict.REMEMBERED
    assert known.judge((HOST, "db"), port, KEY) is Verdict.KNOWN
    assert known.judge((HOST, "db"), port, OTHER) is Verdict.CHANGED
    pattern = HOST if port == 22 else f"[{HOST}]:{port}"
    argv = [require("ssh-keygen"), "-F", pattern, "-f", str(path)]
    found = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert " ".join(KEY.export_public_key().decode().split()[:2]) in found


def test_a_line_that_somebody_left_torn_stays_the_only_one(tmp_path: Path) -> None:
    known = known_hosts(tmp_path, line("10.0.0.9"), "10.0.0.8 ssh-ed", trust_on_first_use=True)
    assert known.judge((HOST,), 22, KEY) is Verdict.REMEMBERED
    assert KnownHosts(known.path, trust_on_first_use=False).judge((HOST,), 22, KEY) is Verdict.KNOWN


def test_what_another_process_remembered_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    one, two = (KnownHosts(path, trust_on_first_use=True) for _ in range(2))
    assert one.judge((HOST,), 22, KEY) is Verdict.REMEMBERED
    assert two.judge((HOST,), 22, OTHER) is Verdict.CHANGED
    assert two.judge((HOST,), 22, KEY) is Verdict.KNOWN


def test_of_many_that_see_a_host_first_one_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    keys = [asyncssh.generate_private_key("ssh-ed25519").convert_to_public() for _ in range(8)]
    judges = [KnownHosts(path, trust_on_first_use=True) for _ in keys]
    with ThreadPoolExecutor(len(keys)) as threads:
        verdicts = list(threads.map(lambda judge, key: judge.judge((HOST,), 22, key), judges, keys))
    assert sorted(verdicts, key=str) == [Verdict.CHANGED] * 7 + [Verdict.REMEMBERED]
    assert len(path.read_text().splitlines()) == 1


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    known = known_hosts(tmp_path, line(HOST), line("10.0.0.2"), trust_on_first_use=True)
    (tmp_path / "edited").write_text(line(HOST, OTHER))
    (tmp_path / "edited").rename(known.path)
    assert known.judge(("10.0.0.3",), 22, KEY) is Verdict.REMEMBERED
    assert known.judge((HOST,), 22, OTHER) is Verdict.KNOWN
    assert known.judge((HOST,), 22, KEY) is Verdict.CHANGED


@pytest.mark.parametrize("name", ["*", "a b", "a,b", "a\nb", "@revoked", "", "|1|", "#"])
def test_a_name_that_would_mean_more_than_one_host_is_not_written(
    tmp_path: Path, name: str
) -> None:
    known = KnownHosts(tmp_path / "known_hosts", trust_on_first_use=True)
    assert known.judge((name,), 22, KEY) is Verdict.UNKNOWN
    assert not known.path.exists()


def test_a_file_that_cannot_be_read_is_a_wrong_choice(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        KnownHosts(tmp_path, trust_on_first_use=False)
