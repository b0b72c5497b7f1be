-- The number of the user's last login, by which logins are put in order.
ALTER TABLE user
    ADD COLUMN last_login BIGINT UNSIGNED NOT NULL DEFAULT 0
