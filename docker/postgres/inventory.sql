-- The inventory: what the operator says there is. PostgreSQL runs this once, on an empty volume.
-- A row for each LoRaWAN concentrator (gateway); eui is 16 hexadecimal digits.
CREATE TABLE concentrators (
    id VARCHAR(128) PRIMARY KEY,
    name VARCHAR(256) NOT NULL,
    eui VARCHAR(16) NOT NULL UNIQUE,
    enabled BOOLEAN NOT NULL DEFAULT true,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
);
