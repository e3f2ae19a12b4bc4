"""What answers for the devices of a simulated fleet, in threads of this process."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import asyncssh
import sqlalchemy as sa

from metrics_pipeline.access.whole_file import write_private
from metrics_pipeline.simulators.device_fleet import (
    Behaviour,
    SimulatedDevice,
    a_year_behind,
    impossible,
    make_devices,
    step,
)
from metrics_pipeline.simulators.fleet_inventory import mirror_devices
from metrics_pipeline.simulators.snmp_agent import AgentManner, SimulatedAgent, SnmpAgents
from metrics_pipeline.simulators.snmp_objects import Identity
from metrics_pipeline.simulators.ssh_host import HostFigures, Manner, SimulatedHost, SshHosts
from metrics_pipeline.simulators.tcp_targets import TcpTargets

logger = logging.getLogger(__name__)

COMMUNITY_FILE = "snmp_community"
PASSWORD_FILE = "ssh_password"  # noqa: S105  (a file's name)
KEY_FILE = "ssh_key"
KNOWN_HOSTS_FILE = "known_hosts"
SLOW_AGENT_SECONDS = 0.4
SLOW_HOST_SECONDS = 2.0
"""How long the slow ones take for an answer: below the probes' own limits of 2 s and 5 s."""

HOST_MANNERS = {
    Behaviour.SLOW: Manner.SLOW,
    Behaviour.LYING: Manner.LYING,
    Behaviour.WRONG_CLOCK: Manner.TALKATIVE,
}
AGENT_MANNERS = {
    Behaviour.WRONG_TYPES: AgentManner.WRONG_TYPES,
    Behaviour.WRONG_REQUEST: AgentManner.WRONG_REQUEST,
    Behaviour.CIRCLING: AgentManner.CIRCLING,
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens the devices; made anew each time the fleet is served."""

    community: str
    password: str
    key: asyncssh.SSHKey

    def __repr__(self) -> str:
        return "Credentials(…)"


@dataclass(frozen=True, slots=True)
class DeviceServers:
    """The servers of all protocols while they run."""

    agents: SnmpAgents
    hosts: SshHosts
    targets: TcpTargets

    def show(self, devices: Iterable[SimulatedDevice]) -> None:
        """Answer as `devices` are now; those that are down give no sign."""
        for each in devices:
            address = each.device.address
            if each.device.protocol == "snmp":
                agent = self.agents.agents[address]
                agent.figures, agent.is_silent = _shown(each), not each.is_up
            elif each.device.protocol == "ssh":
                self.hosts.hosts[address].figures = _shown(each)
                self.hosts.set_up(address, each.is_up)
            else:
                self.targets.set_up(address, each.is_up)

    def place(self, devices: Iterable[SimulatedDevice]) -> list[SimulatedDevice]:
        """`devices` with the ports they are served on."""
        ports = {"snmp": self.agents.port, "ssh": self.hosts.port, "tcp": self.targets.port}
        return [
            replace(each, device=replace(each.device, port=ports[each.device.protocol]))
            for each in devices
        ]


@contextmanager
def serve_devices(
    devices: Sequence[SimulatedDevice], credentials: Credentials
) -> Iterator[DeviceServers]:
    """Serve `devices`, on ports that are free.

    Raises OSError where there are no addresses in 127.20.0.0/16: other systems than Linux.
    """

    def those_of(protocol: str) -> list[SimulatedDevice]:
        return [each for each in devices if each.device.protocol == protocol]

    with ExitStack() as running:
        agents = SnmpAgents(map(_agent, those_of("snmp")), community=credentials.community)
        running.enter_context(agents)
        hosts = SshHosts(
            map(_host, those_of("ssh")), authorized=[credentials.key], password=credentials.password
        )
        hosts.slow_seconds = SLOW_HOST_SECONDS
        running.enter_context(hosts)
        targets = TcpTargets([each.device.address for each in those_of("tcp")])
        running.enter_context(targets)
        servers = DeviceServers(agents, hosts, targets)
        servers.show(devices)
        yield servers


@contextmanager
def serve_device_fleet(
    *, directory: Path, inventory: sa.Engine, step_seconds: float, seed: int
) -> Iterator[None]:
    """Serve a fleet that changes every `step_seconds`, as long as the `with` lasts.

    Once inside, all devices answer, the inventory has them, and what opens them is in `directory`,
    for the owner alone to read. They stay in the inventory afterwards. Where the addresses cannot
    be had, there is a warning and no fleet. Raises OSError when the files cannot be written.
    """
    random = Random(seed)  # noqa: S311  (dice of a simulation, not a key)
    devices = make_devices(random, unix_seconds=time.time())
    credentials = Credentials(
        secrets.token_urlsafe(16),
        secrets.token_urlsafe(16),
        asyncssh.generate_private_key("ssh-ed25519"),
    )
    with ExitStack() as running:
        try:
            servers = running.enter_context(serve_devices(devices, credentials))
        except OSError as error:
            logger.warning("There are no simulated devices: %s", error)
            yield
            return
        _write_secrets(directory, credentials, servers.hosts)
        stepper = _Stepper(servers, devices, inventory, random, step_seconds)
        running.enter_context(stepper.running())
        yield


class _Stepper:
    """Lets time pass, in a thread."""

    def __init__(
        self,
        servers: DeviceServers,
        devices: Sequence[SimulatedDevice],
        inventory: sa.Engine,
        random: Random,
        step_seconds: float,
    ) -> None:
        self._servers = servers
        self._devices = servers.place(devices)
        self._inventory = inventory
        self._random = random
        self._step_seconds = step_seconds
        self._stop = threading.Event()
        self._is_in_inventory = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Step as long as the `with` lasts; the devices are in the inventory first."""
        self._mirror()
        thread = threading.Thread(target=self._run, name="device-fleet")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._step_seconds):
            before = self._devices
            self._devices = [*step(before, self._step_seconds, self._random)]
            self._servers.show(self._devices)
            _tell_changes(before, self._devices)
            if not self._is_in_inventory:
                self._mirror()

    def _mirror(self) -> None:
        """A database that is locked or down for a while does not end the simulation."""
        try:
            mirror_devices(self._inventory, self._devices)
            self._is_in_inventory = True
        except sa.exc.OperationalError as error:
            logger.warning("The simulated devices are not in the inventory yet: %s", error.orig)


def _tell_changes(before: Iterable[SimulatedDevice], now: Iterable[SimulatedDevice]) -> None:
    for old, new in zip(before, now, strict=True):
        if old.is_up != new.is_up:
            state = "up again" if new.is_up else "down"
            logger.info("%s is %s for %.0f s", new.device.id, state, new.seconds_left)


def _write_secrets(directory: Path, credentials: Credentials, hosts: SshHosts) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(directory / COMMUNITY_FILE, credentials.community + "\n")
    write_private(directory / PASSWORD_FILE, credentials.password + "\n")
    write_private(directory / KEY_FILE, credentials.key.export_private_key("openssh").decode())
    write_private(directory / KNOWN_HOSTS_FILE, hosts.known_hosts())


def _agent(simulated: SimulatedDevice) -> SimulatedAgent:
    assert simulated.agent is not None
    device = simulated.device
    return SimulatedAgent(
        address=device.address,
        identity=Identity(simulated.agent, device.hostname, device.labels.get("site", "")),
        figures=_shown(simulated),
        delay_seconds=SLOW_AGENT_SECONDS if simulated.behaviour is Behaviour.SLOW else 0.0,
        is_silent=not simulated.is_up,
        manner=AGENT_MANNERS.get(simulated.behaviour, AgentManner.WELL),
    )


def _host(simulated: SimulatedDevice) -> SimulatedHost:
    return SimulatedHost(
        address=simulated.device.address,
        figures=_shown(simulated),
        manner=HOST_MANNERS.get(simulated.behaviour, Manner.WELL),
        known_key=_another_key() if simulated.behaviour is Behaviour.CHANGED_KEY else None,
    )


def _another_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


def _shown(simulated: SimulatedDevice) -> HostFigures:
    """What it makes of its figures. A host with SSH lies in its report alone."""
    if simulated.behaviour is Behaviour.WRONG_CLOCK:
        return a_year_behind(simulated.figures)
    if simulated.behaviour is Behaviour.LYING and simulated.agent is not None:
        return impossible(simulated.figures)
    return simulated.figures
