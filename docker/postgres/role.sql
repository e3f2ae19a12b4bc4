-- The role of the product: it owns its database and its tables, and is no superuser. PostgreSQL runs
-- this once, on an empty volume, as its superuser `postgres`, which nobody uses after that.
\set password `cat /run/secrets/postgres_password`
CREATE ROLE metrics LOGIN PASSWORD :'password';
ALTER DATABASE metrics OWNER TO metrics;
\i /etc/metrics_pipeline/monitor.sql
SET ROLE metrics;
\i /etc/metrics_pipeline/inventory.sql
