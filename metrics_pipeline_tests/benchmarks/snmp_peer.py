"""Debian's `prometheus-snmp-exporter`, asked for the same values of the same agents.

In two ways: walking the tables, which is how it asks a mixed fleet, as it cannot remember which
rows a device has; and told every instance beforehand in its configuration, the least it can do.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from metrics_pipeline_tests.benchmarks.snmp_fleet import (
    COMMUNITY,
    PASSWORD,
    PEER_USER,
    address_of,
    asked_when_known,
    is_dead,
)
from metrics_pipeline_tests.servers import listening_ports, require, running, wait_until

SCRAPES_AT_ONCE = 50
OBJECT_IDS = {"1.3.6.1.2.1.1.2.0"}
"""What is no number; the exporter is to show it as a label."""
AUTHENTICATION = {
    "community": {"version": 2, "auth": {"community": COMMUNITY}},
    "user": {
        "version": 3,
        "auth": {
            "security_level": "authPriv",
            "username": PEER_USER.name,
            "password": PASSWORD,
            "auth_protocol": "SHA",
            "priv_protocol": "AES",
            "priv_password": PASSWORD,
        },
    },
}
"""By the name of a module, what in it says who asks."""


class Peer:
    """A `prometheus-snmp-exporter` that runs."""

    def __init__(self, pid: int, port: int, agent_port: int) -> None:
        self._pid, self._port, self._agent_port = pid, port, agent_port

    async def sweep(self, module: str, devices: int, dead_every: int) -> dict[str, float]:
        """Scrape all devices; what the exporter took, and how many values are not there."""
        window, values = asyncio.Semaphore(SCRAPES_AT_ONCE), 0
        free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

        async def scrape(device: int) -> None:
            nonlocal values
            async with window:
                connection = (
                    free.pop() if free else await asyncio.open_connection("127.0.0.1", self._port)
                )
                found = await self._scrape(*connection, module, device)
                values += found  # not in one: what was read before an await is old after it
                free.append(connection)

        cpu = self._cpu_seconds()
        await asyncio.gather(*(scrape(device) for device in range(devices)))
        taken = self._cpu_seconds() - cpu
        for _, writer in free:
            writer.close()
        alive = sum(not is_dead(device, dead_every) for device in range(devices))
        missing = alive * len(asked_when_known()) - values
        return {"sweep_cpu_s": taken, "missing_values": max(0, missing)}  # walks find more rows

    async def _scrape(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, module: str, device: int
    ) -> int:
        target = f"{address_of(device)}:{self._agent_port}"
        request = f"GET /snmp?module={module}&target={target} HTTP/1.1\r\nHost: peer\r\n\r\n"
        writer.write(request.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "transfer-encoding: chunked" in head:
            body = b""
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        else:
            length = int(head.partition("content-length:")[2].split()[0])
            body = await reader.readexactly(length)
        return body.count(b"\nvalue_")

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def peer(agent_port: int, request: Mapping[str, Any]) -> Iterator[Peer]:
    """The exporter, with a module for each way and credential; `request` is how they ask.

    The modules are `community`, `user`, `community_walk` and `user_walk`.
    """
    program = require("prometheus-snmp-exporter")
    modules = {
        f"{name}{ending}": module | dict(request) | who
        for name, who in AUTHENTICATION.items()
        for ending, module in (("", _module(walk=False)), ("_walk", _module(walk=True)))
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "snmp.yml"
        file.write_text(yaml.safe_dump(modules))
        argv = [program, f"--config.file={file}", "--web.listen-address=127.0.0.1:0"]
        argv += ["--log.level=error"]
        with running(argv) as pid:
            wait_until(lambda: bool(listening_ports(pid)), "the exporter listens")
            yield Peer(pid, listening_ports(pid).pop(), agent_port)


def _module(*, walk: bool) -> dict[str, Any]:
    """A module of the exporter's snmp.yml (version 0.21) less who asks, and how."""
    asked = asked_when_known()
    scalars = {oid for oid in asked if oid.endswith(".0")}
    columns = dict.fromkeys(o if o in scalars else o.rpartition(".")[0] for o in asked)
    metrics = [
        {
            "name": f"value_{at}",
            "oid": column.removesuffix(".0"),
            "type": "DisplayString" if column in OBJECT_IDS else "gauge",
            "help": column,
            "indexes": [] if column in scalars else [{"labelname": "row", "type": "gauge"}],
        }
        for at, column in enumerate(columns)
    ]
    if not walk:
        return {"get": list(asked), "metrics": metrics}
    return {"get": sorted(scalars), "walk": [c for c in columns if c not in scalars]} | {
        "metrics": metrics
    }
