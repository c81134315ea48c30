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
    -- When its epoch began.
    at double precision NOT NULL,
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
    -- When it came into its queue, from another one or as a new entry: not when it was released.
    arrived_at double precision NOT NULL DEFAULT extract(epoch FROM clock_timestamp()),
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
-- What was true of a queue when it was analyzed is not true a minute later. Without statistics of these, any state of any
-- queue is taken for rare: so the planner always goes by the indexes below, and not by names past all other states.
ALTER TABLE SCHEMA.entry
    ALTER queue SET STATISTICS 0, ALTER state SET STATISTICS 0;
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

-- Names that sort by the time they were made, as the library makes them; each later than the session's last.
CREATE FUNCTION SCHEMA.next_name() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    told text := current_setting('multispool.last_name', true);
    last bigint := CASE WHEN told ~ '^[1-8][0-9]{18}$' THEN told::bigint ELSE 0 END;
    -- The clock has microseconds, a name has nanoseconds: there is room for those of one microsecond.
    made bigint := greatest((extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000, last + 1);
BEGIN
    PERFORM set_config('multispool.last_name', made::text, false);
    RETURN to_char(to_timestamp(made / 1000000000) AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS')
        || '.' || lpad((made % 1000000000)::text, 9, '0') || 'Z-' || left(gen_random_uuid()::text, 8);
END
$$;

-- Why a text cannot be a name; NULL if it can.
CREATE FUNCTION SCHEMA.fault_of(name text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN name = '' THEN 'it is empty'
        WHEN octet_length(name) > 200 THEN 'it has ' || octet_length(name) || ' bytes, and 200 is the most'
        WHEN left(name, 1) = '.' THEN 'it starts with a dot'
        WHEN strpos(name, '/') > 0 THEN 'it contains a slash'
        WHEN name COLLATE "C" ~ '[\u0001-\u001f\u007f-\u009f]' THEN 'it contains a control character'
    END
$$;

-- The state of an entry or a name, as in the table; NULL if there is neither. For who has no right to read that.
CREATE FUNCTION SCHEMA.state_of(name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT state::text FROM SCHEMA.entry WHERE entry.name = state_of.name
$$;

-- Enqueue in the transaction of the caller: a program in any language, a trigger, a job of the server. Returns the
-- name. With if_absent, returns NULL for a name that is taken; without, that is an error (unique_violation). The
-- search path is its own, and so is that of what it calls: an administrator may make it SECURITY DEFINER.
CREATE FUNCTION SCHEMA.enqueue(
    queue text,
    metadata bytea,
    data bytea DEFAULT '',
    not_before timestamptz DEFAULT NULL,
    name text DEFAULT NULL,
    remember interval DEFAULT NULL,
    carrier jsonb DEFAULT NULL,
    if_absent boolean DEFAULT false
) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    new_name CONSTANT text := coalesce(enqueue.name, SCHEMA.next_name());
    fault CONSTANT text := SCHEMA.fault_of(new_name);
    now CONSTANT double precision := extract(epoch FROM clock_timestamp());
    due CONSTANT double precision := nullif(greatest(extract(epoch FROM enqueue.not_before), now), now);
    size CONSTANT bigint := coalesce(octet_length(enqueue.data), 0);
    pieces CONSTANT integer := CASE WHEN size > 65536 THEN ceil(size / 262144.0) ELSE 0 END;
    there "char";
BEGIN
    IF enqueue.queue IS NULL OR NOT EXISTS (SELECT FROM SCHEMA.queue AS known WHERE known.name = enqueue.queue) THEN
        RAISE EXCEPTION 'there is no queue % in the spool %', coalesce(quote_literal(enqueue.queue), 'NULL'), 'SCHEMA'
            USING ERRCODE = 'foreign_key_violation', HINT = 'Make it with Spool.create or multispool create.';
    END IF;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION '% cannot be a name: %', quote_literal(new_name), fault
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue.metadata IS NULL THEN
        RAISE EXCEPTION 'the metadata of an entry cannot be NULL' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF due >= 15021158400 THEN
        RAISE EXCEPTION 'not_before is at the latest in the year 2445, not %', enqueue.not_before
            USING ERRCODE = 'datetime_field_overflow';
    END IF;
    IF extract(epoch FROM enqueue.remember) < 0 THEN
        RAISE EXCEPTION 'a name cannot be remembered for less than no time, as %', enqueue.remember
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF jsonb_typeof(enqueue.carrier) <> 'object' OR enqueue.carrier @? '$.* ? (@.type() != "string")' THEN
        RAISE EXCEPTION 'a carrier is an object whose values are strings, not %', enqueue.carrier
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    INSERT INTO SCHEMA.entry AS entry (
        name, queue, state, due_at, remember, written_at, moved_at, arrived_at, metadata, data, chunks, size, data_at,
        carrier
    ) VALUES (
        new_name, enqueue.queue, CASE WHEN due IS NULL THEN 'a' ELSE 'w' END::"char", due,
        extract(epoch FROM enqueue.remember), now, now, now, enqueue.metadata,
        CASE WHEN pieces = 0 THEN coalesce(enqueue.data, '') END, pieces, size, now,
        convert_to(enqueue.carrier::text, 'UTF8')
    )
    ON CONFLICT (name) DO UPDATE SET
        queue = excluded.queue, state = excluded.state, owner = NULL, token = NULL, due_at = excluded.due_at,
        remember = excluded.remember, written_at = excluded.written_at, moved_at = excluded.moved_at,
        arrived_at = excluded.arrived_at, metadata = excluded.metadata, data = excluded.data, chunks = excluded.chunks, size = excluded.size,
        data_at = excluded.data_at, notes = NULL, progress = NULL, carrier = excluded.carrier, begun = NULL,
        reason = NULL, cancel = NULL, cancel_in = NULL
        -- A name that is not remembered any longer; or a reservation that was let go.
        WHERE (entry.state = 'k' AND entry.due_at <= now) OR (entry.state = 'r' AND entry.owner = 0);
    IF NOT FOUND THEN
        IF enqueue.if_absent THEN
            RETURN NULL;
        END IF;
        SELECT state INTO there FROM SCHEMA.entry WHERE entry.name = new_name;
        IF there = 'r' THEN
            RAISE EXCEPTION 'the name % is reserved', quote_literal(new_name)
                USING ERRCODE = 'object_in_use', HINT = 'Try again when it is used, or was given up.';
        ELSIF there = 'k' THEN
            RAISE EXCEPTION 'an entry named % was removed from this spool, and its name is remembered',
                quote_literal(new_name) USING ERRCODE = 'unique_violation', CONSTRAINT = 'entry_pkey';
        END IF;
        RAISE EXCEPTION 'an entry named % already exists in this spool', quote_literal(new_name)
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'entry_pkey';
    END IF;

    IF pieces > 0 THEN
        DELETE FROM SCHEMA.chunk WHERE chunk.name = new_name;
        INSERT INTO SCHEMA.chunk (name, number, bytes)
        SELECT new_name, piece, substring(enqueue.data FROM piece * 262144 + 1 FOR 262144)
        FROM generate_series(0, pieces - 1) AS piece;
    END IF;

    -- Readers are told at the commit. All commits that tell something wait for each other, so it can be left out:
    -- SET LOCAL multispool.notify = off. Then they find the entry when they look, within a second.
    IF current_setting('multispool.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('SCHEMA', 'a ' || enqueue.queue);
    END IF;
    RETURN new_name;
END
$$;

CREATE FUNCTION SCHEMA.enqueue(
    queue text,
    metadata text,
    data bytea DEFAULT '',
    not_before timestamptz DEFAULT NULL,
    name text DEFAULT NULL,
    remember interval DEFAULT NULL,
    carrier jsonb DEFAULT NULL,
    if_absent boolean DEFAULT false
) RETURNS text
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT SCHEMA.enqueue(
        queue, convert_to(metadata, 'UTF8'), data, not_before, name, remember, carrier, if_absent)
$$;

CREATE FUNCTION SCHEMA.enqueue(
    queue text,
    metadata json,
    data bytea DEFAULT '',
    not_before timestamptz DEFAULT NULL,
    name text DEFAULT NULL,
    remember interval DEFAULT NULL,
    carrier jsonb DEFAULT NULL,
    if_absent boolean DEFAULT false
) RETURNS text
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT SCHEMA.enqueue(
        queue, convert_to(metadata::text, 'UTF8'), data, not_before, name, remember, carrier, if_absent)
$$;

CREATE FUNCTION SCHEMA.enqueue(
    queue text,
    metadata jsonb,
    data bytea DEFAULT '',
    not_before timestamptz DEFAULT NULL,
    name text DEFAULT NULL,
    remember interval DEFAULT NULL,
    carrier jsonb DEFAULT NULL,
    if_absent boolean DEFAULT false
) RETURNS text
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT SCHEMA.enqueue(
        queue, convert_to(metadata::text, 'UTF8'), data, not_before, name, remember, carrier, if_absent)
$$;

-- Bytes as text: as they are if they are UTF-8, else with \ooo for each that is not ASCII.
CREATE FUNCTION SCHEMA.readable(raw bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN convert_from(raw, 'UTF8');
EXCEPTION WHEN character_not_in_repertoire THEN
    RETURN encode(raw, 'escape');
END
$$;

-- For people, and for programs that only look: whoever may read this view, and not the table, blocks nobody.
CREATE VIEW SCHEMA.entries AS
SELECT
    entry.name,
    entry.queue,
    CASE entry.state
        WHEN 'a' THEN 'available' WHEN 'w' THEN 'waiting' WHEN 'c' THEN 'checked out' WHEN 'q' THEN 'quarantined'
    END AS state,
    SCHEMA.readable(entry.metadata) AS metadata,
    entry.size AS data_size,
    CASE WHEN entry.state = 'w' THEN to_timestamp(entry.due_at) END AS due_at,
    to_timestamp(entry.written_at) AS written_at,
    to_timestamp(entry.moved_at) AS moved_at,
    owner.host,
    owner.pid,
    SCHEMA.readable(entry.progress) AS progress,
    SCHEMA.readable(entry.notes) AS notes,
    entry.reason
FROM SCHEMA.entry AS entry LEFT JOIN SCHEMA.owner AS owner ON owner.id = entry.owner
WHERE entry.state IN ('a', 'w', 'c', 'q');

INSERT INTO SCHEMA.format VALUES (1, 1);
