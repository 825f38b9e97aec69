-- Queries of gateway/store/why.py: what decides when a delivery leaves. Each is a look by key; row-level security limits those on
-- a site's own rows, lanes and holds are read by the numbers that these rows name.

-- name: deliveries
-- Up to $3 deliveries of message $1 after $2, open and ended, with what decides about each.
WITH accepted AS MATERIALIZED (
    SELECT id * 1024 AS first, id * 1024 + deliveries - 1 AS last, accepted_at FROM acceptance
    WHERE message_id = $1 AND id * 1024 + deliveries - 1 > $2 ORDER BY id LIMIT $3
)
SELECT * FROM (
    SELECT q.id, q.recipient, q.state::text AS state, q.priority, q.broadcast_id, q.attempts, NULL::smallint AS code, NULL::text AS enhanced,
           q.last_reply AS reply, q.last_class AS bounce_class, q.accepted_at, nullif(q.due_at, 'infinity') AS due_at, q.expires_at,
           NULL::timestamptz AS ended_at, q.lane_id, q.flow_id, q.seq,
           (SELECT i.status FROM incarnation i WHERE q.state = 'leased' AND i.id = q.owner_id) AS owner_status
    FROM accepted a CROSS JOIN LATERAL (
        SELECT * FROM queue q WHERE q.id BETWEEN a.first AND a.last AND q.id > $2 ORDER BY q.id LIMIT $3) q
    UNION ALL
    SELECT e.id, e.recipient, e.state::text, e.priority, e.broadcast_id, e.attempts, e.code, e.enhanced, e.reply, e.bounce_class, e.accepted_at,
           NULL, NULL, e.ended_at, e.lane_id, NULL, NULL, NULL
    FROM accepted a CROSS JOIN LATERAL (
        SELECT * FROM ended e WHERE e.id BETWEEN a.first AND a.last AND e.id > $2 AND e.accepted_at = a.accepted_at
        ORDER BY e.id LIMIT $3) e
) both_kinds
ORDER BY id LIMIT $3;

-- name: fleet
-- The time, and whether a dispatcher lives by its own word.
SELECT clock_timestamp() AS now, EXISTS (SELECT FROM incarnation WHERE status <> 'closed' AND status = 'live') AS dispatching;

-- name: lanes
-- How lanes $1 stand at $2: their limits, what they have spent in advance, and whether they are suspended.
SELECT s.lane_id, l.name, s.rate_per_s, s.burst,
       CASE WHEN s.tat > $2::timestamptz THEN extract(epoch FROM s.tat - $2)::double precision ELSE 0 END AS owes_s,
       CASE WHEN s.suspended_until > $2 THEN nullif(s.suspended_until, 'infinity') END AS suspended_until,
       s.suspended_until > $2 AS suspended, s.suspended_why
FROM lane_state s JOIN lane l ON l.id = s.lane_id WHERE s.lane_id = ANY ($1::integer[]);

-- name: holds
-- What holds site $1 or broadcast $2 (0: none), or the whole fleet.
SELECT kind, why, created_at, until_at FROM hold
WHERE (until_at IS NULL OR until_at > clock_timestamp())
  AND (kind, ref) IN (('fleet', 0), ('site', $1::bigint), ('broadcast', $2::bigint));

-- name: suppressions
-- The suppressions of site $1 for addresses $2 (in lower case).
SELECT email_key, scope, reason, created_at FROM suppression WHERE site_id = $1 AND email_key = ANY ($2::text[]);

-- name: held_since
-- When deliveries $1 were held last, from $2 on.
SELECT delivery_id, max(at) AS at FROM event WHERE delivery_id = ANY ($1::bigint[]) AND at >= $2 AND at < now() + interval '1 hour' AND kind = 'held'
GROUP BY delivery_id;

-- name: turns
-- How many stand before place $2 in each of flows $1 (no more than $3 are counted), and how many flows share its lane.
SELECT flow_id, ahead, sharing FROM flow_turns($1, $2, $3);
