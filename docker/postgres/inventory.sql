-- The inventory: what the operator says there is. PostgreSQL runs this once, on an empty volume.
-- A row for each LoRaWAN concentrator (gateway); eui is 16 hexadecimal digits.
CREATE TABLE concentrators (
    id VARCHAR(128) PRIMARY KEY,
    name VARCHAR(256) NOT NULL,
    eui VARCHAR(16) NOT NULL UNIQUE,
    enabled BOOLEAN NOT NULL DEFAULT true,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- A row for each device that is polled: `metrics-pipeline devices import` fills it. `credential` is a
-- name in the settings, never a secret; `port` 0 is the protocol's usual one.
CREATE TABLE devices (
    id VARCHAR(128) PRIMARY KEY,
    hostname VARCHAR(255) NOT NULL DEFAULT '',
    ip_address VARCHAR(255) NOT NULL,
    mac_address VARCHAR(17) NOT NULL DEFAULT '',
    device_type VARCHAR(64) NOT NULL DEFAULT 'unknown',
    protocol VARCHAR(32) NOT NULL,
    port INTEGER NOT NULL DEFAULT 0,
    credential VARCHAR(128) NOT NULL DEFAULT '',
    enabled BOOLEAN NOT NULL DEFAULT true,
    labels JSON NOT NULL DEFAULT '{}',
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- Which changes of these tables are made already, so that the product makes later ones only.
CREATE TABLE inventory_schema (version INTEGER PRIMARY KEY);
INSERT INTO inventory_schema (version) VALUES (1), (2);
