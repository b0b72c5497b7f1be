-- The tables the chat began with. schema.sql at the top of the repository explains all tables.

CREATE TABLE IF NOT EXISTS user (
    id                  INT NOT NULL AUTO_INCREMENT,
    name                VARBINARY(255) NOT NULL,
    password_hash       VARCHAR(255) NOT NULL,
    last_offline_at_ms  BIGINT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY user_name (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
CREATE TABLE IF NOT EXISTS friendship (
    user_id    INT NOT NULL,
    friend_id  INT NOT NULL,
    PRIMARY KEY (user_id, friend_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
CREATE TABLE IF NOT EXISTS chat_group (
    id           INT NOT NULL AUTO_INCREMENT,
    name         VARCHAR(255) NOT NULL,
    description  VARCHAR(1024) NOT NULL,
    creator_id   INT NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
CREATE TABLE IF NOT EXISTS group_member (
    group_id    INT NOT NULL,
    user_id     INT NOT NULL,
    role        TINYINT NOT NULL,
    joined_seq  BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (group_id, user_id),
    KEY group_member_user (user_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
CREATE TABLE IF NOT EXISTS conversation (
    id        BIGINT UNSIGNED NOT NULL,
    last_seq  BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
CREATE TABLE IF NOT EXISTS conversation_cursor (
    user_id          INT NOT NULL,
    conversation_id  BIGINT UNSIGNED NOT NULL,
    acked_seq        BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (user_id, conversation_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
CREATE TABLE IF NOT EXISTS message (
    conversation_id    BIGINT UNSIGNED NOT NULL,
    seq                BIGINT UNSIGNED NOT NULL,
    sender_id          INT NOT NULL,
    kind               TINYINT NOT NULL,
    client_message_id  BIGINT UNSIGNED NULL,
    content            MEDIUMTEXT NOT NULL,
    client_time        VARCHAR(64) NOT NULL,
    created_at_ms      BIGINT NOT NULL,
    PRIMARY KEY (conversation_id, seq),
    UNIQUE KEY message_of_client (sender_id, client_message_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
