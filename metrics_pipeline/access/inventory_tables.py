"""The tables of the inventory database: what the operator says there is.

What these tables look like in a database is the work of `inventory_schema.py`.
"""

from __future__ import annotations

import sqlalchemy as sa

INVENTORY = sa.MetaData()

CONCENTRATORS = sa.Table(
    "concentrators",
    INVENTORY,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("eui", sa.String(16), nullable=False, unique=True),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column(
        "created_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.current_timestamp(),
    ),
)
"""LoRaWAN concentrators (gateways). `eui` is 16 hexadecimal digits."""

DEVICES = sa.Table(
    "devices",
    INVENTORY,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("hostname", sa.String(255), nullable=False, server_default=""),
    sa.Column("ip_address", sa.String(255), nullable=False),
    sa.Column("mac_address", sa.String(17), nullable=False, server_default=""),
    sa.Column("device_type", sa.String(64), nullable=False, server_default="unknown"),
    sa.Column("protocol", sa.String(32), nullable=False),
    sa.Column("port", sa.Integer, nullable=False, server_default="0"),
    sa.Column("credential", sa.String(128), nullable=False, server_default=""),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("labels", sa.JSON, nullable=False, server_default="{}"),
    sa.Column(
        "created_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.current_timestamp(),
    ),
    sa.Column(
        "updated_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.current_timestamp(),
    ),
)
"""Devices that are polled. `core/device_rows.py` says what each column may hold.

`ip_address` is an IP address or a host name, `port` 0 the protocol's usual one, and `credential`
the name of one in the settings. Times are UTC.
"""
