"""Windows hosts for tests: a user they know, a credential for it, and one poll of one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metrics_pipeline.core.devices import HOST_METRICS, Device, DeviceReading
from metrics_pipeline.core.ports import Trace
from metrics_pipeline.simulators.windows_host import WindowsHost, ntlm_users
from metrics_pipeline.sources.winrm import WinRm
from metrics_pipeline.sources.winrm_settings import WindowsLogin, WinRmSettings

USER, PASSWORD = r"EXAMPLE\monitor", "correct horse battery staple"
QUICK = WinRmSettings(timeout_seconds=5)
IMPATIENT = WinRmSettings(timeout_seconds=0.3)


class Site:
    """A folder with a password file; makes credentials, devices and polls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password_file = folder / "password"
        self.password_file.write_text(PASSWORD, encoding="utf-8")

    def login(self, **changes: Any) -> WindowsLogin:
        """A credential that is right for a host over plain HTTP."""
        given = {"user": USER, "password": {"file": self.password_file}, "transport": "http"}
        return WindowsLogin.model_validate(given | changes)

    def poll(
        self,
        host: WindowsHost | tuple[str, int],
        login: WindowsLogin | None = None,
        *,
        metrics: Collection[str] = HOST_METRICS,
        settings: WinRmSettings = QUICK,
        trace: Trace | None = None,
    ) -> DeviceReading:
        """One poll by a probe of its own."""

        async def scenario() -> DeviceReading:
            async with WinRm(settings, {"windows": login or self.login()}) as probe:
                return await probe.poll(device(host), metrics, trace)

        return asyncio.run(scenario())


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """While it lasts, simulated hosts of this process let USER in."""
    with ntlm_users(folder, {USER: PASSWORD}):
        yield Site(folder)


def device(host: WindowsHost | tuple[str, int], **changes: Any) -> Device:
    """The inventory's row of `host`."""
    address, port = host.address if isinstance(host, WindowsHost) else host
    given: dict[str, Any] = {
        "id": "7",
        "hostname": "win.example.org",
        "address": address,
        "device_type": "server",
        "protocol": "winrm",
        "port": port,
        "credential": "windows",
    }
    return Device(**(given | changes))
