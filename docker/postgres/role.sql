-- The roles of the product. `metrics` owns the database and its tables, and is no superuser;
-- `metrics_monitor` sees statistics, and reads and writes no row. PostgreSQL runs this once, on an
-- empty volume, as its superuser `postgres`, which nobody uses after that.
\set password `cat /run/secrets/postgres_password`
CREATE ROLE metrics LOGIN PASSWORD :'password';
ALTER DATABASE metrics OWNER TO metrics;
\set monitor_password `cat /run/secrets/postgres_monitor_password`
CREATE ROLE metrics_monitor LOGIN PASSWORD :'monitor_password' CONNECTION LIMIT 5 IN ROLE pg_monitor;
ALTER ROLE metrics_monitor SET default_transaction_read_only = on;
SET ROLE metrics;
\i /etc/metrics_pipeline/inventory.sql
