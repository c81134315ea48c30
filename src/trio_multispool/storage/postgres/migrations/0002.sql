-- That readers take nothing from a queue: JSON, as in a file of `.paused`; nothing if they may.
ALTER TABLE SCHEMA.queue ADD COLUMN pause bytea;

UPDATE SCHEMA.format SET version = 2, reads = 1;
