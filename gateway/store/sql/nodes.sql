-- Queries of gateway/store/nodes.py. The first number of the advisory lock is "gate" in ASCII, the second a node's code.

-- name: announce
-- This session stands for a node whose newest migration is $1, until it ends. Nobody takes this lock alone, so nobody waits.
SELECT pg_advisory_lock_shared(1734440037, $1::int);

-- name: nodes
-- Who stands for a node in this database: its code, its session's pid and application name.
SELECT l.objid::bigint::int AS code, l.pid, coalesce(a.application_name, '') AS name
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid::bigint = 1734440037
ORDER BY code, l.pid;
