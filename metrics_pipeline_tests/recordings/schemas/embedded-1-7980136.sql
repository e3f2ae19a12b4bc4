PRAGMA application_id = 1297107280;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE field (
    id INTEGER PRIMARY KEY,
    measurement TEXT NOT NULL,
    name TEXT NOT NULL,
    value_type TEXT NOT NULL,
    UNIQUE (measurement, name)
);
INSERT INTO "field" VALUES(1,'polls','whole','float');
INSERT INTO "field" VALUES(2,'polls','count','integer');
INSERT INTO "field" VALUES(3,'polls','up','boolean');
INSERT INTO "field" VALUES(4,'polls','text','string');
CREATE TABLE point (
    series_id INTEGER NOT NULL REFERENCES series,
    time_ns INTEGER NOT NULL,
    field_id INTEGER NOT NULL REFERENCES field,
    value NOT NULL,  -- no declared type: SQLite then keeps what it is given
    PRIMARY KEY (series_id, time_ns, field_id)
) WITHOUT ROWID;
INSERT INTO "point" VALUES(1,1,1,3.0);
INSERT INTO "point" VALUES(1,1,2,9223372036854775807);
INSERT INTO "point" VALUES(1,1,3,1);
INSERT INTO "point" VALUES(1,1,4,'é "q" \ 
');
INSERT INTO "point" VALUES(2,2,1,3.00000000000000044408e-01);
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    measurement TEXT NOT NULL,
    tags TEXT NOT NULL,  -- a JSON object, keys sorted
    UNIQUE (measurement, tags)
);
INSERT INTO "series" VALUES(1,'polls','{"device_id":"a","site":"\u00e9"}');
INSERT INTO "series" VALUES(2,'polls','{"device_id":"b"}');
COMMIT;
