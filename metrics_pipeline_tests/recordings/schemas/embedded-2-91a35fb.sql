PRAGMA application_id = 1297107280;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE field (
        id INTEGER PRIMARY KEY,
        measurement_id INTEGER NOT NULL REFERENCES measurement,
        name TEXT NOT NULL,
        value_type TEXT NOT NULL,
        UNIQUE (measurement_id, name)
    );
INSERT INTO "field" VALUES(1,1,'whole','float');
INSERT INTO "field" VALUES(2,1,'count','integer');
INSERT INTO "field" VALUES(3,1,'up','boolean');
INSERT INTO "field" VALUES(4,1,'text','string');
CREATE TABLE measurement (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    );
INSERT INTO "measurement" VALUES(1,'polls');
CREATE TABLE point (
        measurement_id INTEGER NOT NULL REFERENCES measurement,
        time_ns INTEGER NOT NULL,
        series_id INTEGER NOT NULL REFERENCES series,
        fields TEXT NOT NULL,  -- a JSON object: the numbers of the fields, their values
        PRIMARY KEY (measurement_id, time_ns, series_id)
    ) WITHOUT ROWID
    ;
INSERT INTO "point" VALUES(1,1,1,'{"1":3.0,"2":9223372036854775807,"3":true,"4":"\u00e9 \"q\" \\ \n"}');
INSERT INTO "point" VALUES(1,2,2,'{"1":0.30000000000000004}');
CREATE TABLE series (
        id INTEGER PRIMARY KEY,
        measurement_id INTEGER NOT NULL REFERENCES measurement,
        tags TEXT NOT NULL,  -- a JSON object, keys sorted
        UNIQUE (measurement_id, tags)
    );
INSERT INTO "series" VALUES(1,1,'{"device_id":"a","site":"\u00e9"}');
INSERT INTO "series" VALUES(2,1,'{"device_id":"b"}');
COMMIT;
