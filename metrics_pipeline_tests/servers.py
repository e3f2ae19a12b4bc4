"""Real servers for tests: each on a port of its own, in a folder of its own, always stopped."""

from __future__ import annotations

import atexit
import datetime
import importlib.util
import ipaddress
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from metrics_pipeline_tests.patience import PATIENCE_SECONDS

REQUIRE_REAL_SERVERS = "METRICS_PIPELINE_REQUIRE_REAL_SERVERS"
"""Environment variable: with 1, a server that is not installed fails the test (as in CI)."""

PLAIN_HTTP = httpx.Client(verify=False, timeout=30)
"""For http:// alone: loading the system's certificates would take longer than the request."""
atexit.register(PLAIN_HTTP.close)

STOP_SECONDS = 10.0
LOG_TAIL_CHARACTERS = 2000


class Process(Protocol):
    """Of which it can be told whether it has ended."""

    def poll(self) -> int | None:
        """Its exit status, if it has."""


_LISTENING = "0A"  # the state in /proc/net/tcp, see proc(5)


def require(program: str) -> str:
    """The path of `program`; without it the test is skipped, or fails where CI asks for all."""
    path = shutil.which(program)
    if path is None:
        do_without(f"{program} is not installed (.ci/run installs what the tests need)")
    return path


def require_module(name: str, command: str) -> None:
    """As `require`, for a Python module that `command` installs."""
    if importlib.util.find_spec(name) is None:
        do_without(f"the module {name} is not installed ({command} installs it)")


def do_without(message: str) -> NoReturn:
    """Skip the test, and say why; fail it where CI asks for all."""
    if os.environ.get(REQUIRE_REAL_SERVERS) == "1":
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def running(argv: Sequence[str], ready: Callable[[], bool] | None = None) -> Iterator[int]:
    """Runs `argv` for the length of the `with`; gives its process id once `ready` says so."""
    with tempfile.TemporaryFile() as log:
        # In a group of its own: Ctrl-C is for who has started it, and still needs it then.
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, process_group=0)
        try:
            wait_until(ready or (lambda: True), f"{argv[0]} is ready", process, log.fileno())
            yield process.pid
        finally:
            _stop(process)


def wait_until(
    condition: Callable[[], bool],
    what: str,
    process: Process | None = None,
    log: int | None = None,
) -> None:
    """Returns once `condition` holds; fails the test when it does not, or `process` has ended.

    To look takes no more than a tenth of a core from who is waited for.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    began = time.thread_time()
    while not condition():
        has_ended = process is not None and process.poll() is not None
        if has_ended or time.monotonic() > deadline:
            pytest.fail(f"waited in vain until {what}: {_tail(log)}")
        time.sleep(max(0.01, 9 * (time.thread_time() - began)))
        began = time.thread_time()


def listening_ports(pid: int) -> set[int]:
    """The TCP ports over IPv4 on which process `pid` listens (from /proc, so on Linux)."""
    sockets = {_link(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        int(row[1].rpartition(":")[2], base=16)
        for row in rows
        if row[3] == _LISTENING and f"socket:[{row[9]}]" in sockets
    }


@contextmanager
def victoria_metrics(folder: Path) -> Iterator[str]:
    """VictoriaMetrics with its data in `folder`; gives its URL.

    One sample a millisecond and series is kept: without that it keeps what is written twice.
    """
    argv = [
        require("victoria-metrics"),
        f"-storageDataPath={folder}",
        "-httpListenAddr=127.0.0.1:0",
        "-retentionPeriod=100y",
        "-dedup.minScrapeInterval=1ms",
        "-search.latencyOffset=0s",
    ]
    with running(argv) as pid:
        yield answering_url(pid, "/health")


@contextmanager
def prometheus(folder: Path, config: Mapping[str, Any], *options: str) -> Iterator[str]:
    """Prometheus with `config` and its data in `folder`; gives its URL."""
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    argv = [
        require("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
        *options,
    ]
    with running(argv) as pid:
        yield answering_url(pid, "/-/ready")


@contextmanager
def prometheus_over_blocks(folder: Path) -> Iterator[str]:
    """Prometheus that scrapes nothing, and has the blocks in `folder`/data, however old."""
    with prometheus(folder, {}, "--storage.tsdb.retention.time=100y") as url:
        yield url


def self_signed(folder: Path, *hosts: str) -> Path:
    """A certificate for 127.0.0.1 and `hosts` that vouches for itself, and its key, in one PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test's server")])
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    names = [loopback, *(x509.DNSName(host) for host in hosts)]
    now, hour = datetime.datetime.now(datetime.UTC), datetime.timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - hour)
        .not_valid_after(now + hour)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(certificate.public_bytes(pem) + private)
    return path


def answering_url(pid: int, path: str) -> str:
    """`http://127.0.0.1:port` of the port of `pid` that answers to GET `path` with a 2xx."""
    found: list[str] = []

    def look() -> bool:
        urls = (f"http://127.0.0.1:{port}" for port in sorted(listening_ports(pid)))
        found.extend(url for url in urls if _answers(url + path))
        return bool(found)

    wait_until(look, f"process {pid} answers to {path}")
    return found[0]


def _answers(url: str) -> bool:
    try:
        return PLAIN_HTTP.get(url, timeout=1).is_success
    except httpx.HTTPError:
        return False


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:  # closed in the meantime
        return ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: int | None) -> str:
    if log is None:
        return "no output"
    size = os.fstat(log).st_size
    start = max(0, size - LOG_TAIL_CHARACTERS)
    return os.pread(log, LOG_TAIL_CHARACTERS, start).decode(errors="replace") or "no output"
