-- Queries of gateway/store/lane_report.py.

-- name: lanes
-- Lanes with what stands in them, the longest backlog first: lane $1 alone (null: all), the idle ones too if $2, $3 at most. Reads the whole
-- queue once: no index counts it by lane, and none is worth its writes for an operator's look.
WITH held AS (
    SELECT coalesce(array_agg(ref) FILTER (WHERE kind = 'broadcast'), '{}') AS broadcasts,
           coalesce(array_agg(ref) FILTER (WHERE kind = 'site'), '{}') AS sites
    FROM hold WHERE until_at IS NULL OR until_at > clock_timestamp()
), backlog AS (
    SELECT q.lane_id,
           count(*) FILTER (WHERE q.state = 'queued') AS queued,
           count(*) FILTER (WHERE q.state = 'queued' AND (q.broadcast_id = ANY (h.broadcasts) OR q.site_id = ANY (h.sites))) AS paused,
           count(*) FILTER (WHERE q.state = 'queued' AND q.site_id = ANY (h.sites)) AS site_held,
           count(*) FILTER (WHERE q.state = 'leased') AS leased,
           count(*) FILTER (WHERE q.state = 'deferred') AS deferred,
           count(*) FILTER (WHERE q.state = 'held') AS held,
           count(*) FILTER (WHERE q.state = 'in_doubt') AS in_doubt,
           min(q.due_at) FILTER (WHERE q.state IN ('deferred', 'in_doubt')) AS next_due_at,
           count(*) AS open
    FROM queue q CROSS JOIN held h WHERE $1::integer IS NULL OR q.lane_id = $1 GROUP BY q.lane_id
)
SELECT l.id, l.name, s.rate_per_s, s.burst, s.max_connections,
       (SELECT coalesce(sum(s.slots[i + 1]), 0) FROM generate_series(1, cardinality(s.slots), 2) i
        WHERE s.slots[i] IN (SELECT n.id FROM incarnation n WHERE n.status = 'live')) AS connections,
       CASE WHEN s.tat > clock_timestamp() THEN extract(epoch FROM s.tat - clock_timestamp())::double precision ELSE 0 END AS owes_s,
       s.token_at > clock_timestamp() AS spent,
       s.suspended_until > clock_timestamp() AS suspended,
       CASE WHEN s.suspended_until > clock_timestamp() THEN nullif(s.suspended_until, 'infinity') END AS suspended_until,
       CASE WHEN s.suspended_until > clock_timestamp() THEN s.suspended_why ELSE '' END AS suspended_why,
       coalesce(b.queued, 0) AS queued, coalesce(b.paused, 0) AS paused, coalesce(b.site_held, 0) AS site_held,
       coalesce(b.leased, 0) AS leased, coalesce(b.deferred, 0) AS deferred, coalesce(b.held, 0) AS held, coalesce(b.in_doubt, 0) AS in_doubt, b.next_due_at
FROM lane l JOIN lane_state s ON s.lane_id = l.id LEFT JOIN backlog b ON b.lane_id = l.id
WHERE ($1::integer IS NULL OR l.id = $1) AND ($2 OR b.open > 0 OR s.suspended_until > clock_timestamp())
ORDER BY b.open DESC NULLS LAST, l.name, l.id LIMIT $3;

-- name: fleet
-- How many dispatchers live by their own word, and why all claiming is stopped, if it is.
SELECT (SELECT count(*) FROM incarnation WHERE status = 'live') AS dispatchers,
       (SELECT why FROM hold WHERE kind = 'fleet' AND (until_at IS NULL OR until_at > clock_timestamp()) LIMIT 1) AS stopped;
