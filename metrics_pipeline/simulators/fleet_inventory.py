"""Simulated concentrators and devices in the inventory database, next to the operator's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from metrics_pipeline.access.inventory_schema import upgrade_inventory
from metrics_pipeline.access.inventory_tables import CONCENTRATORS, DEVICES
from metrics_pipeline.simulators.device_fleet import SimulatedDevice
from metrics_pipeline.simulators.fleet import ID_PREFIX, Concentrator


def mirror_concentrators(engine: sa.Engine, concentrators: Sequence[Concentrator]) -> None:
    """Make the simulated rows of the table be `concentrators`; upgrades the inventory if need be.

    A row whose id does not begin with `simulated-` is never touched, and one of `concentrators`
    whose EUI such a row has is left out. Raises what SQLAlchemy raises.
    """
    upgrade_inventory(engine)
    with engine.begin() as connection:
        present = connection.execute(sa.select(CONCENTRATORS.c.id, CONCENTRATORS.c.eui)).all()
        wanted = {each.id: each for each in concentrators}
        gone = [row.id for row in present if row.id.startswith(ID_PREFIX) and row.id not in wanted]
        if gone:
            connection.execute(sa.delete(CONCENTRATORS).where(CONCENTRATORS.c.id.in_(gone)))
        taken = {row.eui for row in present if row.id not in gone}
        new = [
            {"id": each.id, "name": each.name, "eui": each.eui}
            for each in concentrators
            if each.eui not in taken
        ]
        if new:
            connection.execute(sa.insert(CONCENTRATORS), new)


def mirror_devices(engine: sa.Engine, devices: Sequence[SimulatedDevice]) -> None:
    """Make the simulated rows of the table be `devices`; upgrades the inventory if need be.

    A row whose id does not begin with `simulated-` is never touched, and of those that do only
    what has changed is: a device that an operator has disabled stays so. Raises what SQLAlchemy
    raises.
    """
    upgrade_inventory(engine)
    wanted = {each.device.id: _row(each) for each in devices}
    with engine.begin() as connection:
        simulated = sa.select(DEVICES).where(DEVICES.c.id.startswith(ID_PREFIX, autoescape=True))
        present = {row.id: row._mapping for row in connection.execute(simulated)}
        gone = [id_ for id_ in present if id_ not in wanted]
        if gone:
            connection.execute(sa.delete(DEVICES).where(DEVICES.c.id.in_(gone)))
        new = [row for id_, row in wanted.items() if id_ not in present]
        if new:
            connection.execute(sa.insert(DEVICES), new)
        for id_, row in wanted.items():
            if id_ in present and any(present[id_][name] != row[name] for name in row):
                changed = {**row, "updated_at": datetime.now(UTC)}
                connection.execute(sa.update(DEVICES).where(DEVICES.c.id == id_).values(changed))


def _row(simulated: SimulatedDevice) -> dict[str, Any]:
    device = simulated.device
    return {
        "id": device.id,
        "hostname": device.hostname,
        "ip_address": device.address,
        "mac_address": simulated.mac_address,
        "device_type": device.device_type,
        "protocol": device.protocol,
        "port": device.port,
        "credential": device.credential,
        "labels": dict(device.labels),
    }
