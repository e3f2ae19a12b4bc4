"""The running processes of one stack: started in order, watched, ended together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from metrics_pipeline.settings import Settings
from metrics_pipeline.stack.exporter_client import ExporterClient
from metrics_pipeline.stack.layout import Layout
from metrics_pipeline.stack.ports import is_listening
from metrics_pipeline.stack.processes import Child, ProcessFailed, end_all
from metrics_pipeline.stack.webserver_client import WebserverClient

READY_WITHIN_SECONDS = 120.0
LOOK_EVERY_SECONDS = 0.5


class Stopped(Exception):
    """Somebody asked the stack to end: Ctrl-C, SIGTERM, or a terminal that was closed."""


@dataclass(slots=True)
class Stack:
    """Everything that runs. `say` shows progress to a person, `stop` asks it to end."""

    layout: Layout
    settings: Settings
    say: Callable[[str], None]
    stop: threading.Event
    needed: list[Child] = field(default_factory=list)
    simulator: Child | None = None

    @property
    def webserver(self) -> WebserverClient:
        """A client of its webserver."""
        return WebserverClient(self.layout.webserver_url)

    @property
    def exporter(self) -> ExporterClient:
        """A client of its exporter."""
        return ExporterClient(self.settings.exporter, self.layout.exporter_port)

    @property
    def gateway_url(self) -> str:
        """Where robots send to."""
        gateway = self.settings.gateway
        assert gateway is not None
        scheme = "ws" if gateway.tls is None else "wss"
        return f"{scheme}://{gateway.host}:{self.layout.gateway_port}"

    def start_simulator(self) -> None:
        """Start the simulated IoT Hub and wait until it says how to reach it."""
        simulated = self.settings.simulator
        assert simulated is not None
        simulated.connection_string_file.unlink(missing_ok=True)
        self.simulator = self._spawn("simulated IoT Hub", self.layout.simulator())
        self._wait(self.simulator, simulated.connection_string_file.exists)

    def start(self) -> None:
        """Start the pipeline's processes and wait until they answer.

        Webserver and daemon come after the code server: what they cannot reach at their start
        they show as broken, and look at again only after a while.
        """
        layout = self.layout
        exporter = self._start_needed("exporter", layout.exporter())
        code_server = self._start_needed("code server", layout.code_server())
        self._wait(code_server, lambda: is_listening(layout.code_server_port))
        self._start_needed("daemon", layout.daemon())
        webserver = self._start_needed("webserver", layout.webserver())
        if self.settings.gateway is not None:
            gateway = self._start_needed("gateway", layout.gateway())
            self._wait(gateway, lambda: is_listening(layout.gateway_port))
        self._wait(exporter, self.exporter.is_ready)
        self._wait(webserver, self.webserver.is_up)

    def look(self) -> None:
        """Raise Stopped if it is to end, and ProcessFailed if a process we need has ended.

        A simulator that has ended is only told, once.
        """
        if self.stop.is_set():
            raise Stopped
        for child in self.needed:
            if not child.is_running:
                raise ProcessFailed(child, f"ended with status {child.process.returncode}")
        if self.simulator is not None and not self.simulator.is_running:
            self.say("the simulated IoT Hub has ended: the values stay, and their age grows")
            self.simulator = None

    def pause(self) -> None:
        """Wait a little, and look."""
        self.stop.wait(LOOK_EVERY_SECONDS)
        self.look()
        for child in self._children():
            child.bound_log()

    def end(self) -> None:
        """End every process, and whatever they started."""
        end_all(self._children())

    def _children(self) -> list[Child]:
        return [*self.needed, *([self.simulator] if self.simulator else [])]

    def _start_needed(self, name: str, command: Sequence[str]) -> Child:
        child = self._spawn(name, command)
        self.needed.append(child)
        return child

    def _spawn(self, name: str, command: Sequence[str]) -> Child:
        return Child.start(name, command, self.layout.environment(), self.layout.log_dir)

    def _wait(self, child: Child, is_ready: Callable[[], bool]) -> None:
        began = time.monotonic()

        def is_ready_and_all_run() -> bool:
            self.look()
            return is_ready()

        child.wait_until(is_ready_and_all_run, READY_WITHIN_SECONDS)
        self.say(f"{child.name} is ready (after {time.monotonic() - began:.1f} s)")
