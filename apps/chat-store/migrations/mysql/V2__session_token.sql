-- Sessions that can be resumed without the password. schema.sql explains.

CREATE TABLE IF NOT EXISTS session_token (
    user_id        INT NOT NULL,
    token_hash     CHAR(64) NOT NULL,
    expires_at_ms  BIGINT NOT NULL,
    PRIMARY KEY (user_id),
    KEY session_token_expiry (expires_at_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
