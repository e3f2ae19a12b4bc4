"""The inventory database: what the operator says there is (SQLite here, PostgreSQL in production).

Counts and reads rows of `access/inventory_tables.py`, or of a table that the settings map to them,
with SQLAlchemy Core; creates nothing and changes nothing. The failures of a reading are
SourceUnreachable when the database does not answer in time or is locked, CredentialRefused when it
does not let this user in, and SourceRefused when the table is not there or not for this user. Codes
of PostgreSQL: appendix A of its manual.
"""

from __future__ import annotations

import ipaddress
import re
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field, model_validator

from metrics_pipeline.access.database import (
    DatabaseSettings,
    cause_of,
    open_foreign_engine,
    reading,
)
from metrics_pipeline.access.inventory_schema import find_version
from metrics_pipeline.access.inventory_tables import CONCENTRATORS, DEVICES
from metrics_pipeline.access.sparing_connections import be_sparing
from metrics_pipeline.core.catalog import CONCENTRATOR_COUNT, Metric
from metrics_pipeline.core.device_rows import COLUMNS, REQUIRED, DeviceRow, check_row, is_absent
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.errors import (
    ConfigurationError,
    CredentialRefused,
    SourceError,
    SourceRefused,
    SourceUnreachable,
)
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.sources.counting import read_counts
from metrics_pipeline.sources.spec import SourceSpec

NAME = "inventory"
MAX_EXAMPLES = 20

ROWS_AT_ONCE = 5000
"""Devices that one query names; SQLite lets a statement have 32,766 parameters."""

QUERIES: Mapping[Metric, sa.Select[tuple[int]]] = {
    # Registered means listed, so a disabled concentrator counts as well (CONTRACTS section 1).
    CONCENTRATOR_COUNT: sa.select(sa.func.count()).select_from(CONCENTRATORS),
}

MEANINGS: Mapping[str, tuple[type[SourceError], str]] = {
    "no such table|42P01": (SourceRefused, "Create the table, or name the right database."),
    "no such column|42703": (
        SourceRefused,
        "Name columns that the table has in sources.inventory.devices.",
    ),
    "not a database": (SourceRefused, "Name a file that SQLite has made."),
    "database .* does not exist": (SourceRefused, "Create the database, or name the right one."),
    "password authentication|no password|role .* does not exist|pg_hba": (
        CredentialRefused,
        "Check user and password.",
    ),
    "permission denied|42501": (SourceRefused, "GRANT SELECT on the table to this user."),
    "unable to open": (SourceUnreachable, "Check that the file is there and may be read."),
}
"""What a database's words or code mean (the first that is found), and what to do."""

OTHERWISE = (SourceUnreachable, "Check that the database is up and not locked.")


DeviceColumn = Literal[
    "id",
    "hostname",
    "ip_address",
    "mac_address",
    "device_type",
    "protocol",
    "port",
    "credential",
    "enabled",
    "labels",
]

OF_PLACE: tuple[DeviceColumn, ...] = ("ip_address", "port", "protocol")


class DeviceTableSettings(BaseModel, frozen=True, extra="forbid"):
    """A table or view of another's inventory that lists devices. It is only read.

    Names are those the database has, in its case. What the columns hold is read as in a file of
    devices, and a value of PostgreSQL's types uuid, inet, macaddr, boolean, json or jsonb as well.
    """

    table: str = Field(min_length=1, description="The table or view that lists the devices.")
    in_schema: str | None = Field(
        default=None, min_length=1, description="Its schema; without it, the user's search path."
    )
    columns: dict[DeviceColumn, str] = Field(
        description="Our columns, and what the table calls them: `{id: device_uuid, …}`. "
        "Ours are id, hostname, ip_address, mac_address, device_type, protocol, port, "
        "credential, enabled and labels.",
    )
    defaults: dict[DeviceColumn, str] = Field(
        default={},
        description="What our columns hold that the table does not have, or that are empty in it: "
        "`{protocol: snmp, credential: core}`.",
    )
    where: dict[str, bool | int | str] = Field(
        default={},
        description="Only rows whose columns (the table's) have these values: `{status: active}`.",
    )

    @model_validator(mode="after")
    def _check(self) -> DeviceTableSettings:
        if "id" not in self.columns:
            raise ValueError("columns: expected the key id, and it is not there")
        for name in REQUIRED:
            if name not in self.columns and name not in self.defaults:
                raise ValueError(f"columns: expected the key {name}, here or in defaults")
        return self

    def select(self) -> sa.Select[tuple[object, ...]]:
        """The query for our columns, all names quoted."""
        theirs = {*self.columns.values(), *self.where}
        table = sa.table(
            _quoted(self.table),
            *(sa.column(_quoted(name)) for name in theirs),
            schema=_quoted(self.in_schema) if self.in_schema else None,
        )
        chosen = [table.c[theirs].label(ours) for ours, theirs in self.columns.items()]
        rows = [table.c[name] == value for name, value in self.where.items()]
        return sa.select(*chosen).where(*rows).order_by(table.c[self.columns["id"]])


def _quoted(name: str) -> sa.quoted_name:
    return sa.quoted_name(name, quote=True)


OUR_DEVICES = DeviceTableSettings.model_validate(
    {"table": DEVICES.name, "columns": {name: name for name in COLUMNS}}
)
"""Our own table, read without trust in its types: SQLite keeps what it is given."""


class InventorySettings(BaseModel, frozen=True, extra="forbid"):
    """The database that lists what the operator owns."""

    database: DatabaseSettings = Field(description="Where the inventory is.")
    devices: DeviceTableSettings | None = Field(
        default=None,
        description="How to read the devices of an inventory that is there already. Absent means "
        "our own table, which `metrics-pipeline devices` fills.",
    )


@dataclass(frozen=True, slots=True)
class DeviceRows:
    """What the inventory lists, and what of it cannot be polled."""

    rows: tuple[DeviceRow, ...]
    """By id, each once; also those that are not enabled."""
    wrong: Mapping[str, int]
    """How many rows are unusable, by reason: `missing_ip_address`, `duplicate_id` and so on."""
    examples: tuple[str, ...] = ()
    """Of the first of them, which and why."""

    def devices(self, protocols: Collection[str]) -> list[Device]:
        """Those that are enabled and polled by one of `protocols`."""
        return [row.to_device() for row in self.rows if row.enabled and row.protocol in protocols]

    def by_protocol(self) -> Mapping[str, int]:
        """How many are enabled, by protocol: also by one that nobody polls."""
        return Counter(row.protocol for row in self.rows if row.enabled)


class Inventory:
    """Snapshot source over the inventory's tables, and where the devices to poll come from."""

    name = NAME

    def __init__(self, settings: InventorySettings) -> None:
        self._engine = open_foreign_engine(settings.database)
        be_sparing(self._engine)
        self._where = self._engine.url.render_as_string(hide_password=True)
        self._devices = settings.devices or OUR_DEVICES
        self._is_known = settings.devices is not None
        self._last: tuple[list[dict[str, object]], DeviceRows] | None = None

    def read(self, metrics: Sequence[Metric], time_ns: int) -> Reading:
        """One point with one integer field for each of `metrics`; what fails is a failure."""
        return read_counts(NAME, tuple(QUERIES), self._count, metrics, time_ns)

    def read_device_rows(self, is_wanted: Callable[[str], bool] | None = None) -> DeviceRows:
        """The devices, and what is wrong with others; SourceError if the table cannot be read.

        With `is_wanted` only those whose id it wants, which is empty where there is none that can
        be one: of the others nothing but that is read.
        """
        with self._translating(), reading(self._engine) as connection:
            found = list(self._find(connection, is_wanted))
        if self._last is None or self._last[0] != found:
            # Checking them takes longer than asking ten thousand devices for an echo.
            self._last = found, _check_rows(map(dict, found), self._devices.defaults)
        return self._last[1]

    def read_rows_at_one_place(self) -> DeviceRows:
        """Those whose address, port and protocol another has, too; SourceError as above.

        Of each row some columns are read, one row after the other, and 8 bytes are kept.
        """
        with self._translating(), self._engine.connect() as connection:
            places = array("q", (place for place, _ in self._places(connection)))
            taken = {place for place, another in pairwise(sorted(places)) if place == another}
            ids = (cell for place, cell in self._places(connection) if place in taken)
            wanted = list(dict.fromkeys(ids)) if taken else []
            found = list(self._find_by_id(connection, wanted))
        return _check_rows(found, self._devices.defaults)

    def _places(self, connection: sa.Connection) -> Iterator[tuple[int, object]]:
        """What tells where each device is, and the cell of its id."""
        everything, defaults = self._devices.select(), self._devices.defaults
        columns = dict(everything.selected_columns)
        of_place = [columns.get(name, sa.null()) for name in OF_PLACE]
        query = everything.with_only_columns(columns["id"], *of_place)
        usual = [defaults.get(name) for name in OF_PLACE]
        for name, *cells in connection.execute(query.execution_options(yield_per=ROWS_AT_ONCE)):
            place = _place_of(*map(_given, cells, usual))
            if place is not None:
                yield place, name

    def _find(
        self, connection: sa.Connection, is_wanted: Callable[[str], bool] | None
    ) -> Iterator[dict[str, object]]:
        everything = self._devices.select()
        if is_wanted is None or "id" in self._devices.defaults:
            yield from map(dict, connection.execute(everything).mappings())
            return
        column = everything.selected_columns["id"]
        cells = connection.execute(everything.with_only_columns(column)).scalars()
        usable = (cell for cell in cells if is_wanted(str(cell).strip()) and _id_in(cell))
        # The table may have one twice.
        yield from self._find_by_id(connection, list(dict.fromkeys(usable)))
        if is_wanted(""):
            yield from self._find_without_id(connection)

    def _find_without_id(self, connection: sa.Connection) -> Iterator[dict[str, object]]:
        """No more than it takes to tell of them: there is nothing by which to ask for them."""
        everything = self._devices.select()
        columns = dict(everything.selected_columns)
        told = [columns[name] for name in ("id", "enabled") if name in columns]
        for row in connection.execute(everything.with_only_columns(*told)):
            if not _id_in(row[0]):
                yield dict(row._mapping)

    def _find_by_id(
        self, connection: sa.Connection, cells: Sequence[object]
    ) -> Iterator[dict[str, object]]:
        everything = self._devices.select()
        column = everything.selected_columns["id"]
        for at in range(0, len(cells), ROWS_AT_ONCE):
            query = everything.where(column.in_(cells[at : at + ROWS_AT_ONCE]))
            yield from map(dict, connection.execute(query).mappings())

    def close(self) -> None:
        """Close the pool."""
        self._engine.dispose()

    def _count(self, metric: Metric) -> int:
        with self._translating(), reading(self._engine) as connection:
            return connection.execute(QUERIES[metric]).scalar_one()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            self._require_known_version()
            yield
        except sa.exc.SQLAlchemyError as error:
            raise self._translate(error) from error
        except ConfigurationError as error:
            problem = f"{error.where}: {error.problem}"
            raise SourceRefused(NAME, self._where, problem, error.fix) from error

    def _require_known_version(self) -> None:
        """Asked once: ConfigurationError if a later release made our tables."""
        if not self._is_known:
            # Who may read the devices need not be let into the table of versions.
            with suppress(sa.exc.ProgrammingError):
                find_version(self._engine)
            self._is_known = True

    def _translate(self, error: sa.exc.SQLAlchemyError) -> SourceError:
        cause = cause_of(error)
        code = getattr(getattr(error, "orig", None), "pgcode", None)
        meanings = (m for signs, m in MEANINGS.items() if re.search(signs, f"{cause} {code}"))
        kind, fix = next(meanings, OTHERWISE)
        return kind(NAME, self._where, cause, fix)


def _check_rows(
    found: Iterable[dict[str, object]], defaults: Mapping[DeviceColumn, str]
) -> DeviceRows:
    """Rows that are not enabled may be wrong, or have the id of another: nobody polls them."""
    usable: list[DeviceRow] = []
    wrong: list[tuple[str, str]] = []
    for cells in found:
        row, reason, says = _check_one({**cells, **_missing(cells, defaults)})
        if row is not None:
            usable.append(row)
        elif reason:
            wrong.append((reason, f"id {cells.get('id')!r}: {says}"))
    rows: dict[str, DeviceRow] = {}
    for row in sorted(usable, key=lambda row: not row.enabled):
        if row.id not in rows:
            rows[row.id] = row
        elif row.enabled:
            says = f"it is {row.ip_address}, and {rows[row.id].ip_address} on an earlier row"
            wrong.append(("duplicate_id", f"id {row.id!r}: {says}"))
    return DeviceRows(
        tuple(rows[name] for name in sorted(rows)),
        Counter(reason for reason, _ in wrong),
        tuple(says for _, says in wrong[:MAX_EXAMPLES]),
    )


def _id_in(cell: object) -> str:
    """Empty where it is none."""
    try:
        return str(COLUMNS["id"](cell))
    except ValueError:
        return ""


def _place_of(address: object, port: object, protocol: object) -> int | None:
    """The same for two rows that are at one place, whoever else has it; None without an address.

    Not what is checked, which takes ten times as long: it is of those that are found here.
    """
    host = str(_without_prefix_length(address)).strip()
    if address is None or not host:
        return None
    if ":" in host:  # IPv6 can be written in many ways
        with suppress(ValueError):
            host = str(ipaddress.ip_address(host))
    number = "" if port is None else str(port).strip().lstrip("0")
    return hash((host, number, str(protocol).strip().lower()))


def _given(cell: object, usual: object) -> object:
    return usual if is_absent(cell) else cell


def _missing(
    cells: Mapping[str, object], defaults: Mapping[DeviceColumn, str]
) -> Mapping[str, object]:
    return {name: value for name, value in defaults.items() if is_absent(cells.get(name))}


def _check_one(cells: dict[str, object]) -> tuple[DeviceRow | None, str, str]:
    """The row, or the reason that there is none and in words; no reason if it is not enabled."""
    cells["ip_address"] = _without_prefix_length(cells.get("ip_address"))
    row, wrong = check_row(cells)
    if [cell.column for cell in wrong] == ["mac_address"]:  # not needed to poll it
        row, wrong = check_row({**cells, "mac_address": None})
    if row is not None or _is_disabled(cells):
        return row, "", ""
    if wrong[0].column == "id":  # of such a row nothing else may have been read
        wrong = wrong[:1]
    return None, wrong[0].reason, "; ".join(f"{cell.column}: {cell}" for cell in wrong)


def _without_prefix_length(cell: object) -> object:
    """PostgreSQL's type inet has one: 192.0.2.1/24."""
    return cell.partition("/")[0] if isinstance(cell, str) else cell


def _is_disabled(cells: Mapping[str, object]) -> bool:
    try:
        return not is_absent(cells.get("enabled")) and not COLUMNS["enabled"](cells["enabled"])
    except ValueError:
        return False


SPEC = SourceSpec(
    name=NAME,
    title="Inventory database",
    kinds=frozenset({"sql"}),
    reads="inventory/concentrators",
    answers=tuple(QUERIES),
    settings_type=InventorySettings,
    build=Inventory,
    query_type="inventory",
)
