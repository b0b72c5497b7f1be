-- The tables of the MySQL migration of this name, in SQLite's words. Ids and sequences of 64 bits are
-- kept as signed numbers with the same bits.

CREATE TABLE IF NOT EXISTS user (
    -- AUTOINCREMENT: an id is never given out again.
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    name                TEXT NOT NULL UNIQUE,
    password_hash       TEXT NOT NULL,
    last_offline_at_ms  INTEGER
) STRICT;

CREATE TABLE IF NOT EXISTS friendship (
    user_id    INTEGER NOT NULL,
    friend_id  INTEGER NOT NULL,
    PRIMARY KEY (user_id, friend_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS chat_group (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT NOT NULL,
    description  TEXT NOT NULL,
    creator_id   INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS group_member (
    group_id    INTEGER NOT NULL,
    user_id     INTEGER NOT NULL,
    role        INTEGER NOT NULL,
    joined_seq  INTEGER NOT NULL,
    PRIMARY KEY (group_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS group_member_user ON group_member (user_id);

CREATE TABLE IF NOT EXISTS conversation (
    id        INTEGER PRIMARY KEY,
    last_seq  INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS conversation_cursor (
    user_id          INTEGER NOT NULL,
    conversation_id  INTEGER NOT NULL,
    acked_seq        INTEGER NOT NULL,
    PRIMARY KEY (user_id, conversation_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS message (
    conversation_id    INTEGER NOT NULL,
    seq                INTEGER NOT NULL,
    sender_id          INTEGER NOT NULL,
    kind               INTEGER NOT NULL,
    client_message_id  INTEGER,
    content            TEXT NOT NULL,
    client_time        TEXT NOT NULL,
    created_at_ms      INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, seq)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX IF NOT EXISTS message_of_client ON message (sender_id, client_message_id);
