-- Sessions that can be resumed without the password. schema.sql explains.

CREATE TABLE IF NOT EXISTS session_token (
    user_id        INTEGER PRIMARY KEY,
    token_hash     TEXT NOT NULL,
    expires_at_ms  INTEGER NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS session_token_expiry ON session_token (expires_at_ms);
