-- The chat's tables, for MySQL 8 and for MariaDB 10.11: all that the migrations in
-- apps/chat-store/migrations amount to, explained.
--
-- A chat server brings its database up to date by itself when it starts, step by step, by the
-- migrations. This file is for reading, and for making an empty database by hand, as for servers
-- whose user must not change tables: mysql chat < schema.sql
--
-- Text is utf8mb4 (all of Unicode) and compared byte by byte. Times are UTC, in milliseconds since
-- 1970. An acknowledged message is only as durable as the server is set to make it: leave
-- innodb_flush_log_at_trx_commit at 1.
--
-- There are no foreign keys. On every message inserted they would look up and share-lock the rows
-- of its sender and of its conversation, for a promise that is kept anyway: users are never
-- deleted, conversations neither, and a change to a group or to a friendship is one transaction.

-- Registered users.
CREATE TABLE IF NOT EXISTS user (
    id                  INT NOT NULL AUTO_INCREMENT,
    -- Bytes of UTF-8, because the text collations that both databases have ignore spaces at the
    -- end. To read it: SELECT CONVERT(name USING utf8mb4).
    name                VARBINARY(255) NOT NULL,
    -- Argon2id, in the PHC text format.
    password_hash       VARCHAR(255) NOT NULL,
    last_offline_at_ms  BIGINT NULL,
    -- The number of the last login: of two sessions, the one of the higher number stays.
    last_login          BIGINT UNSIGNED NOT NULL DEFAULT 0,
    PRIMARY KEY (id),
    UNIQUE KEY user_name (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Friendships, two rows each: (a, b) and (b, a). So one key serves "my friends" and "may I write?".
CREATE TABLE IF NOT EXISTS friendship (
    user_id    INT NOT NULL,
    friend_id  INT NOT NULL,
    PRIMARY KEY (user_id, friend_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Groups. A deleted group has no row here; its id is not given out again.
CREATE TABLE IF NOT EXISTS chat_group (
    id           INT NOT NULL AUTO_INCREMENT,
    name         VARCHAR(255) NOT NULL,
    description  VARCHAR(1024) NOT NULL,
    -- Who made it. Who is admin now is in group_member.
    creator_id   INT NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Who is in which group.
CREATE TABLE IF NOT EXISTS group_member (
    group_id    INT NOT NULL,
    user_id     INT NOT NULL,
    -- 0 member, 1 admin; each group has exactly one admin.
    role        TINYINT NOT NULL,
    -- The sequence of the member's own "joined" message, 0 for the creator. Orders the members: the
    -- lowest one inherits when the admin leaves.
    joined_seq  BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (group_id, user_id),
    KEY group_member_user (user_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Conversations: pairs of friends, and groups. The id holds the kind and the parties:
--     pair    lower user id << 31 | higher user id
--     group   1 << 62 | group id
-- Every transaction that adds messages locks the row and raises last_seq in it, which is what makes
-- sequences gapless. The row stays when a friendship ends or a group is deleted.
CREATE TABLE IF NOT EXISTS conversation (
    id             BIGINT UNSIGNED NOT NULL,
    last_seq       BIGINT UNSIGNED NOT NULL,
    -- Who belongs to it has not changed for so many messages. What a server knows of that holds as long as
    -- last_seq - unchanged_for stays the same.
    unchanged_for  BIGINT UNSIGNED NOT NULL DEFAULT 0,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- How far a user has a conversation: messages of others after acked_seq are pending. The row also
-- gives the right to read. It is kept when a friendship ends and, for the others, when a group is
-- deleted, so that what is pending still arrives; it goes when a member leaves.
CREATE TABLE IF NOT EXISTS conversation_cursor (
    user_id          INT NOT NULL,
    conversation_id  BIGINT UNSIGNED NOT NULL,
    acked_seq        BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (user_id, conversation_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- All messages, with those that tell of a change (a friend added, a group left).
CREATE TABLE IF NOT EXISTS message (
    conversation_id    BIGINT UNSIGNED NOT NULL,
    -- From 1 in each conversation, without gaps.
    seq                BIGINT UNSIGNED NOT NULL,
    sender_id          INT NOT NULL,
    -- 1 friend chat, 2 group chat, 3 friend added, 4 friend deleted, 5 group joined, 6 group left,
    -- 7 group deleted (the content is the name it had).
    kind               TINYINT NOT NULL,
    -- The sender's own id of the message: the same message sent again is stored once. NULL: none.
    client_message_id  BIGINT UNSIGNED NULL,
    content            MEDIUMTEXT NOT NULL,
    -- The sender's local time as text, only echoed.
    client_time        VARCHAR(64) NOT NULL,
    created_at_ms      BIGINT NOT NULL,
    PRIMARY KEY (conversation_id, seq),
    UNIQUE KEY message_of_client (sender_id, client_message_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What users can resume their session with, without the password: one each, that of the last login.
CREATE TABLE IF NOT EXISTS session_token (
    user_id        INT NOT NULL,
    -- SHA-256 of the token, hexadecimal. The token itself is with the client only.
    token_hash     CHAR(64) NOT NULL,
    -- Moved on when the token is used.
    expires_at_ms  BIGINT NOT NULL,
    PRIMARY KEY (user_id),
    KEY session_token_expiry (expires_at_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The migrations that were applied. A server refuses a database with a version that it does not know.
CREATE TABLE IF NOT EXISTS schema_version (
    version        INT NOT NULL,
    name           VARCHAR(255) NOT NULL,
    applied_at_ms  BIGINT NOT NULL,
    PRIMARY KEY (version)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

INSERT INTO schema_version (version, name, applied_at_ms) VALUES
    (1, 'tables', ROUND(UNIX_TIMESTAMP(NOW(3)) * 1000)),
    (2, 'session_token', ROUND(UNIX_TIMESTAMP(NOW(3)) * 1000)),
    (3, 'unchanged_for', ROUND(UNIX_TIMESTAMP(NOW(3)) * 1000)),
    (4, 'last_login', ROUND(UNIX_TIMESTAMP(NOW(3)) * 1000))
ON DUPLICATE KEY UPDATE version = version;
