"""What `metrics-pipeline devices …` does: each function takes the options, gives the exit status.

News is printed to standard output, what is wrong to standard error. A device is never half written:
each command is one transaction.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import sqlalchemy as sa

from metrics_pipeline.access.database import (
    DatabaseSettings,
    cause_of,
    open_engine,
    open_foreign_engine,
    reading,
)
from metrics_pipeline.access.inventory_devices import (
    Changes,
    GivenDevice,
    apply_changes,
    compare,
    lock_devices,
    read_rows,
)
from metrics_pipeline.access.inventory_schema import upgrade_inventory
from metrics_pipeline.access.inventory_tables import DEVICES
from metrics_pipeline.core.device_rows import COLUMNS, DeviceRow, check_row
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.errors import ConfigurationError, MetricsPipelineError, StoreUnavailable
from metrics_pipeline.device_probing import probe_and_tell
from metrics_pipeline.devices_file import DevicesFileError, read_devices_file
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.sources.inventory import DeviceRows, Inventory, InventorySettings
from metrics_pipeline.sources.probe_registry import PROBES

WRONG_USAGE = 2
LISTED = ("id", "hostname", "ip_address", "device_type", "protocol", "port", "credential")


def import_file(options: argparse.Namespace) -> int:
    """Make the table have the devices of a file."""
    settings = load_settings()
    database = _own_database(settings)
    try:
        wanted = read_devices_file(options.file, PROBES)
    except DevicesFileError as error:
        print(error, file=sys.stderr)
        print("Nothing was written. Correct these lines, and import again.", file=sys.stderr)
        return 1
    _refuse_to_remove_all(options.file, wanted, prune=options.prune)
    _warn_of_credentials((device.row for device in wanted), settings)
    if options.dry_run:
        changes = compare(_present(database), wanted, prune=options.prune)
        _print_changes(changes)
        print(f"Would be {_counts(changes)}; nothing was written.")
        return 0
    with _changing(database) as connection:
        changes = compare(read_rows(connection), wanted, prune=options.prune)
        apply_changes(connection, changes)
    print(f"Devices: {_counts(changes)}.")
    return 0


def list_devices(options: argparse.Namespace) -> int:
    """Print the devices; status 1 if the inventory has rows that cannot be polled."""
    listed = _list(_inventory(load_settings()))
    if options.json:
        print(json.dumps([asdict(row) for row in listed.rows], indent=1, ensure_ascii=False))
    else:
        _print_table(listed.rows)
    for reason, count in listed.wrong.items():
        print(f"{count} rows cannot be polled: {reason}", file=sys.stderr)
    for example in listed.examples:
        print(f"  {example}", file=sys.stderr)
    return 1 if listed.wrong else 0


def add_device(options: argparse.Namespace) -> int:
    """Insert one device; status 1 if its id is there already."""
    settings = load_settings()
    database = _own_database(settings)
    given = {name: getattr(options, name, None) for name in COLUMNS}
    given |= {"enabled": not options.disabled, "labels": dict(options.labels)}
    row, wrong = check_row(given, PROBES)
    if row is None:
        print("\n".join(f"{cell.column}: {cell}" for cell in wrong), file=sys.stderr)
        return WRONG_USAGE
    _warn_of_credentials([row], settings)
    with _changing(database) as connection:
        present = read_rows(connection)
        if row.id in present:
            print(f"{row.id} is in the inventory already; nothing was written.", file=sys.stderr)
            return 1
        apply_changes(connection, Changes((row,), (), (), 0))
    print(f"{row.id} was added.")
    return 0


def remove_devices(options: argparse.Namespace) -> int:
    """Delete devices; none of them, and status 1, if one is not there."""
    with _changing(_own_database(load_settings())) as connection:
        present = read_rows(connection)
        unknown = [name for name in options.ids if name not in present]
        if unknown:
            missing = ", ".join(unknown)
            print(f"not in the inventory: {missing}; nothing was removed.", file=sys.stderr)
            return 1
        gone = tuple(present[name] for name in dict.fromkeys(options.ids))
        apply_changes(connection, Changes((), (), gone, 0))
    print(f"Devices: {len(gone)} removed.")
    return 0


def probe_device(options: argparse.Namespace) -> int:
    """Poll one device and print all of it; status 1 if it is down or a value was not readable."""
    settings = load_settings()
    if options.protocol is not None and options.protocol not in PROBES:
        print(f"--protocol: expected one of {', '.join(PROBES)}", file=sys.stderr)
        return WRONG_USAGE
    device = _device_to_probe(options, settings)
    told = probe_and_tell(settings, device, options.timeout, print, options.engine)
    return 0 if asyncio.run(told) else 1


# --- which inventory ------------------------------------------------------------------------------


def _inventory(settings: Settings) -> InventorySettings:
    section = settings.source("inventory")
    if not isinstance(section, InventorySettings):
        raise ConfigurationError(
            "sources.inventory", "there is no such section", "Add it, with a database."
        )
    return section


def _own_database(settings: Settings) -> DatabaseSettings:
    inventory = _inventory(settings)
    if inventory.devices is not None:
        raise ConfigurationError(
            "sources.inventory.devices",
            f"the devices are read from {inventory.devices.table!r}, which is another's",
            "Change them there, or take this key out to have a table of our own.",
        )
    return inventory.database


def _list(inventory: InventorySettings) -> DeviceRows:
    if inventory.devices is None and not _present(inventory.database):
        return DeviceRows((), {})
    with closing(Inventory(inventory)) as opened:
        return opened.read_device_rows()


def _present(database: DatabaseSettings) -> dict[str, DeviceRow]:
    """The rows of our own table; none if it was not made yet. Makes nothing."""
    if database.is_sqlite and not Path(sa.engine.make_url(database.url).database or "").exists():
        return {}
    engine = open_foreign_engine(database)
    try:
        with _translating(engine), reading(engine) as connection:
            if not sa.inspect(connection).has_table(DEVICES.name):
                return {}
            return read_rows(connection)
    finally:
        engine.dispose()


@contextmanager
def _changing(database: DatabaseSettings) -> Iterator[sa.Connection]:
    """One transaction on the latest tables, with nobody else changing devices."""
    engine = open_engine(database)
    try:
        with _translating(engine):
            upgrade_inventory(engine)
            with engine.begin() as connection:
                lock_devices(connection)
                yield connection
    finally:
        engine.dispose()


@contextmanager
def _translating(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise StoreUnavailable(
            f"inventory {engine.url.render_as_string(hide_password=True)}",
            f"{cause_of(error)}; nothing was changed",
            "Check sources.inventory.database in the settings: address, rights, disk, locks.",
        ) from error


# --- what is said ---------------------------------------------------------------------------------


def _refuse_to_remove_all(file: Path, wanted: Sequence[GivenDevice], *, prune: bool) -> None:
    if prune and not wanted:
        raise MetricsPipelineError(
            f"{file}: has no device, and --prune would remove all. Nothing was written."
        )


def _warn_of_credentials(rows: Iterable[DeviceRow], settings: Settings) -> None:
    """Of names that the settings do not define yet; those devices cannot be polled."""
    unknown: Counter[tuple[str, str]] = Counter()
    for row in rows:
        known = getattr(getattr(settings.polling, row.protocol), "credentials", None)
        if row.credential and known is not None and row.credential not in known:
            unknown[row.protocol, row.credential] += 1
    for (protocol, name), count in unknown.items():
        print(
            f"warning: polling.{protocol}.credentials of the settings has no {name!r}, "
            f"which {count} devices name",
            file=sys.stderr,
        )


def _counts(changes: Changes) -> str:
    return (
        f"{len(changes.inserted)} inserted, {len(changes.updated)} updated, "
        f"{len(changes.removed)} removed, {changes.unchanged} unchanged"
    )


def _print_changes(changes: Changes) -> None:
    for row in changes.inserted:
        print(f"+ {row.id}: {row.ip_address} by {row.protocol}")
    for before, after in changes.updated:
        print(f"~ {before.id}: {', '.join(_differences(before, after))}")
    for row in changes.removed:
        print(f"- {row.id}: {row.ip_address} by {row.protocol}")


def _differences(before: DeviceRow, after: DeviceRow) -> Iterator[str]:
    for name in COLUMNS:
        was, becomes = getattr(before, name), getattr(after, name)
        if was != becomes:
            yield f"{name} {was!r} -> {becomes!r}"


def _print_table(rows: Sequence[DeviceRow]) -> None:
    lines = [(*LISTED, "enabled"), *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def _cells(row: DeviceRow) -> tuple[str, ...]:
    shown = [str(getattr(row, name)) for name in LISTED]
    shown[LISTED.index("port")] = str(row.port or "")
    return (*shown, "yes" if row.enabled else "no")


# --- probing --------------------------------------------------------------------------------------


def _device_to_probe(options: argparse.Namespace, settings: Settings) -> Device:
    """As the options say, and for the rest as the inventory does."""
    given = {
        name: value
        for name in ("protocol", "port", "credential")
        if (value := getattr(options, name)) is not None
    }
    known: Mapping[str, object] = {} if "protocol" in given else _found(options.host, settings)
    row, wrong = check_row({"id": options.host, "ip_address": options.host, **known, **given})
    if row is None:
        problem = "; ".join(f"{cell.column}: {cell}" for cell in wrong)
        raise ConfigurationError(options.host, problem, "Name an address, and --protocol.")
    return row.to_device()


def _found(host: str, settings: Settings) -> Mapping[str, object]:
    """The device of the inventory whose id, host name or address is `host`, the first that fits."""
    rows = _list(_inventory(settings)).rows
    for name in ("id", "hostname", "ip_address"):
        for row in rows:
            if getattr(row, name) == host:
                return asdict(row)
    raise ConfigurationError(host, "is not in the inventory", "Say how to ask it with --protocol.")
