"""A real blob service on loopback: Azurite (npm), in memory, on a port of its own.

Its account and key are the ones that every storage emulator has, and that its documentation gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from metrics_pipeline_tests.servers import listening_ports, require, running, wait_until

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def azurite() -> Iterator[str]:
    """Runs it for the length of the `with`; gives the account's connection string."""
    argv = [
        require("azurite-blob"),
        "--inMemoryPersistence",
        "--skipApiVersionCheck",
        "--silent",
        "--disableTelemetry",
        *("--blobHost", "127.0.0.1", "--blobPort", "0"),
    ]
    with running(argv) as pid:
        wait_until(lambda: bool(listening_ports(pid)), "azurite-blob listens")
        (port,) = listening_ports(pid)
        yield connection_string(port)


def connection_string(port: int, key: str = KEY) -> str:
    """What reaches an emulator's account on `port` of this machine."""
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    return (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};"
        f"BlobEndpoint={endpoint};"
    )
