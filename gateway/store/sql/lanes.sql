-- Queries of gateway/store/lanes.py. Lanes are of no site: the API asks for operators alone.

-- name: lanes
-- Up to $2 lanes after $1, only that of domain $3 (null: any), and only suspended ones when $4: limits, tokens, what holds them.
SELECT l.id, l.name, l.source, s.rate_per_s, s.burst, s.max_connections,
       greatest(0, s.burst - CASE WHEN s.tat > t.now THEN extract(epoch FROM s.tat - t.now)::double precision * s.rate_per_s ELSE 0 END) AS tokens,
       CASE WHEN s.tat > t.now THEN extract(epoch FROM s.tat - t.now)::double precision ELSE 0 END AS owes_s,
       s.suspended_until > t.now AS suspended,
       CASE WHEN s.suspended_until > t.now THEN nullif(s.suspended_until, 'infinity') END AS suspended_until,
       CASE WHEN s.suspended_until > t.now THEN s.suspended_why ELSE '' END AS suspended_why,
       s.used_at, o.rate_per_s AS own_rate, o.burst AS own_burst, o.max_connections AS own_connections, o.until_at, o.why, o.created_at
FROM lane l JOIN lane_state s ON s.lane_id = l.id CROSS JOIN (SELECT clock_timestamp() AS now) t
LEFT JOIN lane_override o ON o.lane_id = l.id AND o.until_at > t.now
WHERE l.id > $1 AND ($3::text IS NULL OR l.id = (SELECT d.lane_id FROM domain_lane d WHERE d.domain = $3))
  AND (NOT $4::boolean OR s.suspended_until > t.now)
ORDER BY l.id LIMIT $2;

-- name: backlogs
-- How many deliveries are ready in lanes $1, and how many wait for another try (no more than $2 of either are counted); and are in hand.
SELECT lane_id, ready, waiting, leased FROM lane_backlogs($1, $2);

-- name: fleet_hold
-- What stops all sending, since when.
SELECT why, created_at FROM hold WHERE kind = 'fleet' AND (until_at IS NULL OR until_at > clock_timestamp());

-- name: limit_lane
-- Gives lane $1 rate $2, burst $3 and connections $4 (null: as the throttles say) for $5 seconds because of $6. False: no such lane.
SELECT limit_lane($1, $2, $3, $4, $5, $6);

-- name: unlimit_lane
-- Ends the limits that an operator gave lane $1. False: there are none.
SELECT unlimit_lane($1);

-- name: suspend_lane
-- Suspends lane $1 for $2 seconds (null: until it is resumed) because of $3. False: no such lane.
SELECT suspend_lane($1, $2, $3);

-- name: resume_lane
-- Resumes lane $1. False: it is not suspended.
SELECT resume_lane($1);

-- name: overrides
-- The lanes to which operators gave limits, with these while they last, and whether they are over.
SELECT l.id, l.name, s.rate_per_s, s.burst, s.max_connections, CASE WHEN o.until_at > t.now THEN o.rate_per_s END AS own_rate,
       CASE WHEN o.until_at > t.now THEN o.burst END AS own_burst, CASE WHEN o.until_at > t.now THEN o.max_connections END AS own_connections,
       o.until_at <= t.now AS is_over
FROM lane_override o JOIN lane l ON l.id = o.lane_id JOIN lane_state s ON s.lane_id = o.lane_id CROSS JOIN (SELECT clock_timestamp() AS now) t;

-- name: forget_overrides
-- Removes the limits of lanes $1 that are over.
DELETE FROM lane_override WHERE lane_id = ANY ($1::integer[]) AND until_at <= clock_timestamp();
