BEGIN TRANSACTION;
CREATE TABLE asset_snapshots (
	asset VARCHAR(256) NOT NULL, 
	revision BIGINT NOT NULL, 
	updated_at_ns BIGINT NOT NULL, 
	complete_at_ns BIGINT, 
	body BLOB NOT NULL, 
	PRIMARY KEY (asset)
);
INSERT INTO "asset_snapshots" VALUES('fleet/device_counts',1,1700000000000000000,1700000000000000000,X'78018BE68A564ACB494D2D894FCE2FCD2B2956D2A9562A28CA2FCB4C492D52B2524A2C2F8ECFCC2F51AA050AA7A4966526A742D429599918D5EA189A1BA08358AE5800A94719DF');
CREATE TABLE counted_runs (
	dagster_id VARCHAR(64) NOT NULL, 
	run_id VARCHAR(64) NOT NULL, 
	number BIGINT NOT NULL, 
	status VARCHAR(16), 
	PRIMARY KEY (dagster_id, run_id)
);
CREATE TABLE dead_letter_size (
	id INTEGER NOT NULL, 
	row_count BIGINT NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "dead_letter_size" VALUES(0,1,217);
CREATE TABLE dead_letters (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kept_at_ns BIGINT NOT NULL, 
	namespace TEXT NOT NULL, 
	hub TEXT NOT NULL, 
	consumer_group TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	sequence_number BIGINT NOT NULL, 
	uplink_index BIGINT NOT NULL, 
	"offset" TEXT NOT NULL, 
	enqueued_time_ns BIGINT NOT NULL, 
	reason TEXT NOT NULL, 
	detail TEXT NOT NULL, 
	body BLOB NOT NULL, 
	body_bytes BIGINT NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	UNIQUE (namespace, hub, consumer_group, partition, sequence_number, enqueued_time_ns, uplink_index)
);
INSERT INTO "dead_letters" VALUES(1,1795319072564163775,'plant','uplinks','metrics','0',5,0,'5',1700000000000000000,'not_json','a brace',X'7B',1,217);
CREATE TABLE device_labels (
	asset VARCHAR(256) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	body BLOB NOT NULL, 
	PRIMARY KEY (asset)
);
CREATE TABLE operational_schema (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "operational_schema" VALUES(1);
CREATE TABLE point_tallies (
	name VARCHAR(128) NOT NULL, 
	label VARCHAR(256) NOT NULL, 
	total BIGINT NOT NULL, 
	PRIMARY KEY (name, label)
);
INSERT INTO "point_tallies" VALUES('metrics_pipeline_points_written_total','network_metrics',7);
INSERT INTO "point_tallies" VALUES('metrics_pipeline_dead_letters_total','not_json',1);
CREATE TABLE probe_memories (
	protocol VARCHAR(32) NOT NULL, 
	body BLOB NOT NULL, 
	PRIMARY KEY (protocol)
);
CREATE TABLE run_marks (
	dagster_id VARCHAR(64) NOT NULL, 
	number BIGINT NOT NULL, 
	PRIMARY KEY (dagster_id)
);
CREATE TABLE sampled_slots (
	source VARCHAR(256) NOT NULL, 
	slot_ns BIGINT NOT NULL, 
	PRIMARY KEY (source)
);
CREATE TABLE sampling_lease (
	name VARCHAR(64) NOT NULL, 
	owner TEXT NOT NULL, 
	until_ns BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE telemetry_checkpoints (
	namespace TEXT NOT NULL, 
	hub TEXT NOT NULL, 
	consumer_group TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	"offset" TEXT, 
	sequence_number BIGINT, 
	epoch BIGINT NOT NULL, 
	owner TEXT NOT NULL, 
	updated_at_ns BIGINT NOT NULL, 
	PRIMARY KEY (namespace, hub, consumer_group, partition)
);
INSERT INTO "telemetry_checkpoints" VALUES('plant','uplinks','metrics','0','5',5,1,'run-1',1795319072626864336);
CREATE TABLE telemetry_losses (
	namespace TEXT NOT NULL, 
	hub TEXT NOT NULL, 
	consumer_group TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	after_sequence_number BIGINT NOT NULL, 
	events BIGINT NOT NULL, 
	PRIMARY KEY (namespace, hub, consumer_group, partition)
);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('dead_letters',1);
COMMIT;
