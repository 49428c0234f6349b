-- What came by messages: each once, and the last word of each source on each key.

CREATE TABLE inbox (
    source      TEXT NOT NULL,
    id          TEXT NOT NULL,
    answer      TEXT NOT NULL,
    received_at TEXT NOT NULL,
    PRIMARY KEY (source, id)
);
CREATE INDEX inbox_by_age ON inbox (received_at);

CREATE TABLE spoken (
    source         TEXT NOT NULL,
    key            TEXT NOT NULL,
    revision       BIGINT NOT NULL DEFAULT 0,   -- of the last good word; 0: none yet
    document       TEXT,                         -- what it put; NULL: nothing, or a deletion
    author         TEXT NOT NULL DEFAULT '',
    fault_revision BIGINT NOT NULL DEFAULT 0,   -- of the last bad word that none has mended; 0: none
    faults         TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (source, key)
);
CREATE INDEX spoken_badly ON spoken (source) WHERE fault_revision > 0;
