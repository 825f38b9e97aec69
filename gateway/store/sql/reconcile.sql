-- After a restore of an old backup: what is open, and what becomes of it.

-- name: fleet_hold
-- Why and since when nothing is claimed; locked, so that two operators decide one after the other.
SELECT why, created_at FROM hold WHERE kind = 'fleet' AND ref = 0 FOR UPDATE;

-- name: open_rows
-- What is open by state and stream, and how much of it was accepted before $1.
SELECT state::text AS state, CASE priority WHEN 0 THEN 'transactional' ELSE 'marketing' END AS stream, count(*) AS n,
       count(*) FILTER (WHERE accepted_at <= $1) AS before
FROM queue GROUP BY state, priority ORDER BY queue.state, priority;

-- name: put_in_doubt
-- Everything that could still be sent and was accepted before $1 goes in doubt; $2 and $3 are the waits of transactional and
-- bulk mail in seconds. As after the loss of a journal: bulk mail that was in doubt before waits for evidence alone.
WITH moved AS (
    UPDATE queue q
    SET state = 'in_doubt', owner_id = NULL, epoch = q.epoch + 1, doubts = q.doubts + 1, crashes = 0,
        due_at = least(q.expires_at, CASE WHEN q.priority = 1 AND q.doubts >= 1 THEN 'infinity' ELSE clock_timestamp()
            + make_interval(secs => CASE q.priority WHEN 0 THEN $2::double precision ELSE $3::double precision END) END),
        last_class = 'in_doubt', last_reply = 'the database was restored: it may have been sent already'
    WHERE q.state IN ('queued', 'deferred', 'leased') AND q.accepted_at <= $1
    RETURNING q.id, q.site_id, q.broadcast_id, q.attempts
), told AS (
    INSERT INTO event (delivery_id, site_id, broadcast_id, kind, at, attempt, reply)
    SELECT id, site_id, broadcast_id, 'in_doubt', clock_timestamp(), attempts, 'the database was restored' FROM moved
)
SELECT count(*) FROM moved;

-- name: unlease
-- What is leased is queued again under a new epoch, and its flows are woken; how many.
WITH back AS (
    UPDATE queue SET state = 'queued', owner_id = NULL, epoch = epoch + 1, crashes = 0 WHERE state = 'leased' RETURNING flow_id, seq
), flows AS (
    SELECT flow_id, min(seq) AS seq, count(*) AS n FROM back GROUP BY flow_id
), woken AS (
    SELECT wake(array_agg(flow_id), array_agg(seq)), sum(n) AS n FROM flows
)
SELECT coalesce(n, 0)::bigint FROM woken;

-- name: release_fleet
-- Dispatchers claim again.
DELETE FROM hold WHERE kind = 'fleet' AND ref = 0;
