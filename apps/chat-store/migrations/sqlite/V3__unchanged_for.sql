-- Who belongs to a conversation has not changed for so many messages.
ALTER TABLE conversation
    ADD COLUMN unchanged_for INTEGER NOT NULL DEFAULT 0
