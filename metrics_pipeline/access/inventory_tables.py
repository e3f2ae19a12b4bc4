"""The tables of the inventory database: what the operator says there is."""

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
