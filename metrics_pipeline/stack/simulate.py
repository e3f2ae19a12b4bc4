"""The simulated hubs, devices and services of the settings, until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings, open_engine
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.settings import GatewaySettings, Settings, SimulatorSettings
from metrics_pipeline.simulators.device_servers import serve_device_fleet
from metrics_pipeline.simulators.event_hub.server import EventHubServer
from metrics_pipeline.simulators.iot_hub import serve_fleet
from metrics_pipeline.simulators.lorawan_traffic import serve_lorawan_devices
from metrics_pipeline.simulators.platform_database import serve_platform_database
from metrics_pipeline.simulators.platform_services import (
    ServiceProcess,
    serve_platform_services,
)
from metrics_pipeline.simulators.robots import RobotFleet, serve_robots


def simulate(settings: Settings, gateway_port: int | None = None) -> None:
    """Serve a fleet that moves; its concentrators and devices are in the settings' inventory.

    Its robots send to the gateway's port of the settings, or to `gateway_port`.

    Raises ConfigurationError where the settings have no simulator, or no inventory.
    """
    simulated = settings.simulator
    database: DatabaseSettings | None = getattr(settings.source("inventory"), "database", None)
    if simulated is None or database is None:
        raise ConfigurationError(
            "settings",
            "there is no `simulator` section, or no `sources.inventory`",
            "Take both from the settings that ship with the package.",
        )
    if not database.is_sqlite:
        raise ConfigurationError(
            "sources.inventory.database",
            "the simulator does not write into a database that is not a local file",
            "Leave the `simulator` section out.",
        )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    inventory = open_engine(database)
    try:
        # First the others: when the hub's file is there, all of them answer.
        with (
            _devices(simulated, inventory),
            _event_hub(simulated),
            _services(simulated),
            _platform(simulated),
            _robots(simulated, settings.gateway, gateway_port),
        ):
            serve_fleet(
                port=simulated.port,
                connection_string_file=simulated.connection_string_file,
                inventory=inventory,
                step_seconds=simulated.step_seconds,
                seed=simulated.seed,
                stop=stop,
            )
    finally:
        inventory.dispose()


def _devices(simulated: SimulatorSettings, inventory: sa.Engine) -> AbstractContextManager[None]:
    if simulated.devices_dir is None:
        return nullcontext()
    return serve_device_fleet(
        directory=simulated.devices_dir,
        inventory=inventory,
        step_seconds=simulated.step_seconds,
        seed=simulated.seed,
    )


def _platform(simulated: SimulatorSettings) -> AbstractContextManager[None]:
    if simulated.platform_database_file is None:
        return nullcontext()
    return serve_platform_database(
        simulated.platform_database_file,
        step_seconds=simulated.step_seconds,
        seed=simulated.seed,
    )


def _event_hub(
    simulated: SimulatorSettings,
) -> AbstractContextManager[EventHubServer | None]:
    file = simulated.event_hub_connection_string_file
    if file is None:
        return nullcontext()
    return serve_lorawan_devices(
        connection_string_file=file,
        count=simulated.lorawan_devices,
        step_seconds=simulated.step_seconds,
        seed=simulated.seed,
    )


def _robots(
    simulated: SimulatorSettings, gateway: GatewaySettings | None, port: int | None
) -> AbstractContextManager[RobotFleet | None]:
    if gateway is None or gateway.is_public or gateway.tls is not None or not simulated.robots:
        return nullcontext()
    tokens = [each.token.file for each in gateway.tokens.values()]
    if simulated.robot_token_file not in tokens:
        return nullcontext()
    return serve_robots(
        token_file=simulated.robot_token_file,
        url=f"ws://{gateway.host}:{gateway.port if port is None else port}",
        count=simulated.robots,
        step_seconds=simulated.step_seconds,
        seed=simulated.seed,
    )


def _services(
    simulated: SimulatorSettings,
) -> AbstractContextManager[Mapping[str, ServiceProcess] | None]:
    if simulated.services_dir is None:
        return nullcontext()
    return serve_platform_services(
        directory=simulated.services_dir,
        step_seconds=simulated.step_seconds,
        seed=simulated.seed,
    )
