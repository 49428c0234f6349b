-- The embedded store's first schema. Times are ISO 8601 text in UTC; JSON columns hold canonical values.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- One row: who may write. A process that opens the store raises the token; older holders lose.
CREATE TABLE session (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    token INTEGER NOT NULL
) STRICT;
INSERT INTO session (id, token) VALUES (1, 0);

CREATE TABLE source (
    id         TEXT PRIMARY KEY,
    revision   TEXT NOT NULL,
    faults     TEXT NOT NULL,
    error      TEXT NOT NULL,
    blocked    TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;

-- What sources declare: the last good version of each document.
CREATE TABLE desired (
    key            TEXT PRIMARY KEY,
    kind           TEXT NOT NULL,
    namespace      TEXT NOT NULL,
    name           TEXT NOT NULL,
    uid            TEXT NOT NULL UNIQUE,
    source         TEXT NOT NULL,
    generation     INTEGER NOT NULL,
    digest         TEXT NOT NULL,
    resource       TEXT NOT NULL,
    files          TEXT NOT NULL,
    revision       TEXT NOT NULL,
    author         TEXT NOT NULL,
    path           TEXT NOT NULL,
    line           INTEGER NOT NULL,
    created_at     TEXT NOT NULL,
    generation_at  TEXT NOT NULL,
    deleting_since TEXT,
    prune          TEXT NOT NULL DEFAULT '',
    faults         TEXT NOT NULL DEFAULT '[]',
    conflict       TEXT NOT NULL DEFAULT '',
    suspended      TEXT NOT NULL DEFAULT '',
    sync_token     TEXT
) STRICT;
CREATE INDEX desired_by_source ON desired (source);

-- Which object refers to which, so that a transition wakes those that wait for it.
CREATE TABLE reference (
    from_key TEXT NOT NULL,
    to_key   TEXT NOT NULL,
    PRIMARY KEY (to_key, from_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX reference_by_from ON reference (from_key);

-- What was found and done.
CREATE TABLE object (
    uid    TEXT PRIMARY KEY REFERENCES desired (uid) ON DELETE CASCADE,
    status TEXT NOT NULL,
    hold   TEXT,
    seq    INTEGER NOT NULL
) STRICT;

-- What backends hold for us, with intents. A row goes when the external is known to be gone.
CREATE TABLE external (
    target      TEXT NOT NULL,
    role        TEXT NOT NULL,
    name        TEXT NOT NULL,
    uid         TEXT NOT NULL REFERENCES desired (uid),
    external_id TEXT,
    position    INTEGER NOT NULL,
    record      TEXT NOT NULL,
    PRIMARY KEY (target, role, name)
) STRICT;
CREATE UNIQUE INDEX external_by_id ON external (target, role, external_id);
CREATE INDEX external_by_uid ON external (uid, position);

CREATE TABLE history (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    key      TEXT NOT NULL,
    entry    TEXT NOT NULL
) STRICT;
CREATE INDEX history_by_key ON history (key, position);
CREATE TRIGGER history_is_append_only_update BEFORE UPDATE ON history
BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
CREATE TRIGGER history_is_append_only_delete BEFORE DELETE ON history
BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;

CREATE TABLE outbox (
    position     INTEGER PRIMARY KEY AUTOINCREMENT,
    uid          TEXT NOT NULL,
    seq          INTEGER NOT NULL,
    event        TEXT NOT NULL,
    published_at TEXT,
    UNIQUE (uid, seq)
) STRICT;
CREATE INDEX outbox_unpublished ON outbox (position) WHERE published_at IS NULL;
