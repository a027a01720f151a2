-- What version 1 of the schema wrote. Never changed again.
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE delivery (
    number INTEGER PRIMARY KEY,
    webhook TEXT NOT NULL,
    event_id TEXT NOT NULL,
    round INTEGER NOT NULL,
    event TEXT NOT NULL,
    message_id TEXT NOT NULL,
    queued REAL NOT NULL,
    payload BLOB,
    status TEXT NOT NULL DEFAULT 'pending',
    attempt INTEGER NOT NULL DEFAULT 0,
    due REAL,
    attempted REAL,
    http_status INTEGER,
    seconds REAL,
    response TEXT NOT NULL DEFAULT '',
    problem TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO "delivery" VALUES(1,'w1','e1',0,'message.sent','m1',1.0,NULL,'success',1,NULL,1.5,200,0.25,'OK','');
INSERT INTO "delivery" VALUES(2,'w1','e2',0,'message.sent','m1',1.0,X'653265326532','server_error',1,50.0,1.5,500,0.5,'no','');
INSERT INTO "delivery" VALUES(3,'w2','e3',0,'message.sent','m1',2.0,X'653365336533','pending',0,2.0,NULL,NULL,NULL,'','');
CREATE TABLE soft_bounce (
    message_id TEXT NOT NULL,
    recipient TEXT NOT NULL,
    event_id TEXT NOT NULL,
    noted REAL NOT NULL,
    PRIMARY KEY (message_id, recipient)
) STRICT, WITHOUT ROWID;
INSERT INTO "soft_bounce" VALUES('m1','a@x','e3',2.0);
CREATE TABLE synced (at REAL NOT NULL) STRICT;
INSERT INTO "synced" VALUES(0.0);
CREATE UNIQUE INDEX delivery_once ON delivery (event_id, webhook, round);
CREATE INDEX delivery_due ON delivery (webhook, due, number) WHERE due IS NOT NULL;
CREATE INDEX delivery_webhook ON delivery (webhook, number);
COMMIT;
