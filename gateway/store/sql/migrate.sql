-- Queries of gateway/store/migrate.py. The number of the advisory lock is "gateway" in ASCII.

-- name: create_ledger
-- The record of what was applied; a table of the migrations' own, made before the first of them.
CREATE TABLE IF NOT EXISTS gateway_migration (
    number int PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    code_from int
);

-- name: extend_ledger
-- The column that records of older versions do not have.
ALTER TABLE gateway_migration ADD COLUMN IF NOT EXISTS code_from int;

-- name: ledger_exists
-- Whether any version of the gateway has migrated this database.
SELECT to_regclass('gateway_migration') IS NOT NULL;

-- name: applied
-- What was applied, in order. Where nothing says which code goes with a migration, only code that has it does. By way of JSON,
-- since a record that an older version made may not have the column.
SELECT number, name, sha256, applied_at, coalesce((to_jsonb(m) ->> 'code_from')::int, number) AS code_from
FROM gateway_migration m ORDER BY number;

-- name: record
-- Notes one migration ($1 number, $2 name, $3 sha256, $4 oldest code that goes with it) in the transaction that applies it.
INSERT INTO gateway_migration (number, name, sha256, code_from) VALUES ($1, $2, $3, $4);

-- name: try_lock
-- Takes the migrators' session lock if it is free. Never waits in the database: a waiting session holds a snapshot,
-- which CREATE INDEX CONCURRENTLY of the lock's holder would wait for in turn.
SELECT pg_try_advisory_lock(29099075147620729);

-- name: unlock
-- Gives the migrators' session lock back.
SELECT pg_advisory_unlock(29099075147620729);

-- name: lock_holder
-- Who holds the migrators' lock: pid and application name of at most one session.
SELECT l.pid, coalesce(a.application_name, '') AS application_name
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid::bigint = 29099075147620729 >> 32
  AND l.objid::bigint = 29099075147620729 & 4294967295;

-- name: wait_for_tables
-- How long this transaction waits for a lock ($1, such as '2000ms').
SELECT set_config('lock_timeout', $1, true);
