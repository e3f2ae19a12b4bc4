-- The role by which the product watches its own database: it sees statistics, the statements of all
-- roles among them with what is in them, and may read no table and make nothing. For psql, as a
-- superuser, in the database `metrics`.
\set password `cat "${POSTGRES_MONITOR_PASSWORD_FILE:-/run/secrets/postgres_monitor_password}"`
CREATE ROLE metrics_monitor LOGIN PASSWORD :'password' CONNECTION LIMIT 5 IN ROLE pg_monitor;
ALTER ROLE metrics_monitor SET default_transaction_read_only = on;
-- What each role may do otherwise: fill the disk.
REVOKE TEMPORARY ON DATABASE metrics FROM PUBLIC;
GRANT CREATE ON SCHEMA public TO metrics;  -- PostgreSQL 14: it had that as all others did
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION lo_create(oid), lo_creat(integer), lo_from_bytea(oid, bytea) FROM PUBLIC;
