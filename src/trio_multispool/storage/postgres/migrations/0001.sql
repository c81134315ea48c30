-- One PostgreSQL schema is one spool; SCHEMA stands for its name. All times are seconds since 1970.

-- Which version of the format this is, and the oldest version of it that may still use it.
CREATE TABLE SCHEMA.format (
    version integer NOT NULL,
    reads integer NOT NULL,
    single boolean PRIMARY KEY DEFAULT true CHECK (single)
);

CREATE TABLE SCHEMA.queue (name text COLLATE "C" PRIMARY KEY);

-- Who may hold entries. One is alive as long as any session holds pg_advisory_lock_shared(id). Numbers are random.
CREATE TABLE SCHEMA.owner (
    id bigint PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    server text NOT NULL
);

-- Which servers have been seen (their start and timeline), and since when: a new one has none of the old one's locks.
CREATE TABLE SCHEMA.server (id text PRIMARY KEY, since double precision NOT NULL);

-- For each connection: the last change that it committed. Changes of an older epoch do nothing. It tells, after a
-- connection was lost, whether the change under way took place, and which names it refused.
CREATE TABLE SCHEMA.link (
    owner bigint NOT NULL,
    number integer NOT NULL,
    epoch integer NOT NULL DEFAULT 0,
    change bigint NOT NULL DEFAULT 0,
    refused text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (owner, number)
) WITH (fillfactor = 10);

-- Entries, names that are reserved, and names that are remembered: one unique index decides about every name.
CREATE TABLE SCHEMA.entry (
    name text COLLATE "C" PRIMARY KEY,
    queue text COLLATE "C" NOT NULL,
    -- a: available, w: waiting, c: checked out, q: in quarantine; r: reserved, k: kept, that is remembered
    state "char" NOT NULL,
    -- Of what is checked out or reserved: who has it, and by which of his check-outs. Owner 0 has let go.
    owner bigint,
    token bigint,
    -- Until when it waits, waited when it was checked out, or is remembered.
    due_at double precision,
    -- For how long to remember the name after the entry is removed.
    remember double precision,
    written_at double precision NOT NULL,
    moved_at double precision NOT NULL,
    metadata bytea NOT NULL,
    -- The data; or nothing, if there are chunks of it.
    data bytea,
    chunks integer NOT NULL DEFAULT 0,
    size bigint NOT NULL DEFAULT 0,
    data_at double precision NOT NULL,
    -- JSON objects, but for progress, which is of this check-out.
    notes bytea,
    progress bytea,
    carrier bytea,
    -- An attempt that was begun with this check-out, and is not in the notes yet.
    begun bytea,
    -- Why it is in quarantine.
    reason text,
    -- A request to cancel the work on it, and the queue it was taken from then.
    cancel bytea,
    cancel_in text COLLATE "C"
) WITH (
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 0.0, autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_cost_delay = 0
);
ALTER TABLE SCHEMA.entry
    ALTER metadata SET STORAGE EXTERNAL, ALTER data SET STORAGE EXTERNAL;
CREATE INDEX available ON SCHEMA.entry (queue, name) WHERE state = 'a';
CREATE INDEX waiting ON SCHEMA.entry (queue, due_at, name) WHERE state = 'w';
CREATE INDEX owned ON SCHEMA.entry (owner) WHERE owner IS NOT NULL;
CREATE INDEX held ON SCHEMA.entry (queue) WHERE state = 'c';
CREATE INDEX aside ON SCHEMA.entry (queue, name) WHERE state = 'q';
CREATE INDEX remembered ON SCHEMA.entry (due_at) WHERE state = 'k';
CREATE INDEX cancelled ON SCHEMA.entry (name) WHERE cancel IS NOT NULL;

-- Large data, in pieces. No foreign key: they are deleted by the statement that deletes their entry.
CREATE TABLE SCHEMA.chunk (
    name text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (name, number)
);
ALTER TABLE SCHEMA.chunk ALTER bytes SET STORAGE EXTERNAL;

INSERT INTO SCHEMA.format VALUES (1, 1);
