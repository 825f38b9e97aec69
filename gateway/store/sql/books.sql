-- The books: accepted = the sum of all states, and every accepted id exactly once. Read in one repeatable-read snapshot,
-- while everything works. $1 is a broadcast, or null for all; broadcast 0 stands for single messages.

-- name: raise_memory
-- Room for the deep proof's hash tables, in this transaction alone: with less, a million ids are sorted on disk.
SELECT set_config('work_mem', '256MB', true);

-- name: accounts
-- Both sides of the books by broadcast: what was accepted, the open rows by state, the ended ones as they were tallied.
SELECT broadcast_id, entry, sum(n)::bigint AS n
FROM (
    SELECT broadcast_id, 'accepted' AS entry, sum(deliveries)::bigint AS n
    FROM acceptance WHERE $1::bigint IS NULL OR broadcast_id = $1 GROUP BY broadcast_id
    UNION ALL
    SELECT broadcast_id, state::text, count(*) FROM queue WHERE $1::bigint IS NULL OR broadcast_id = $1 GROUP BY broadcast_id, state
    UNION ALL
    SELECT broadcast_id, state::text, sum(n)::bigint FROM tally WHERE $1::bigint IS NULL OR broadcast_id = $1 GROUP BY broadcast_id, state
) entries
GROUP BY broadcast_id, entry
ORDER BY broadcast_id, entry;

-- name: faulty_ids
-- What is not exactly once where it belongs, by kind, each with its number and the first $2 ids: lost (accepted, no
-- record), double (more than one record), unknown (a record that nothing accepted), misplaced (another site or
-- broadcast than accepted).
WITH record AS (
    SELECT id, count(*) AS n, min(broadcast_id) AS broadcast_id, min(site_id) AS site_id
    FROM (
        SELECT id, broadcast_id, site_id FROM queue WHERE $1::bigint IS NULL OR broadcast_id = $1
        UNION ALL
        SELECT id, broadcast_id, site_id FROM ended WHERE $1::bigint IS NULL OR broadcast_id = $1
    ) every_record
    GROUP BY id
), accepted AS (
    SELECT a.id * 1024 + place AS id, a.broadcast_id, a.site_id
    FROM acceptance a CROSS JOIN generate_series(0, a.deliveries - 1) place
    WHERE $1::bigint IS NULL OR a.broadcast_id = $1
), fault AS (
    SELECT coalesce(a.id, r.id) AS id,
           CASE WHEN r.id IS NULL THEN 'lost' WHEN a.id IS NULL THEN 'unknown' WHEN r.n > 1 THEN 'double' ELSE 'misplaced' END AS kind
    FROM accepted a FULL JOIN record r ON r.id = a.id
    WHERE r.id IS NULL OR a.id IS NULL OR r.n > 1 OR r.broadcast_id <> a.broadcast_id OR r.site_id <> a.site_id
)
SELECT kind, count(*) AS n, (array_agg(id ORDER BY id))[1:$2::integer] AS ids
FROM fault GROUP BY kind ORDER BY kind;

-- name: faulty_tallies
-- Where the tally is not the number of ended records, by broadcast, site and state.
SELECT coalesce(t.broadcast_id, e.broadcast_id) AS broadcast_id, coalesce(t.site_id, e.site_id) AS site_id,
       coalesce(t.state, e.state)::text AS state, coalesce(t.n, 0)::bigint AS tallied, coalesce(e.n, 0) AS ended
FROM (
    SELECT broadcast_id, site_id, state, sum(n) AS n FROM tally
    WHERE $1::bigint IS NULL OR broadcast_id = $1 GROUP BY broadcast_id, site_id, state
) t
FULL JOIN (
    SELECT broadcast_id, site_id, state, count(*) AS n FROM ended
    WHERE $1::bigint IS NULL OR broadcast_id = $1 GROUP BY broadcast_id, site_id, state
) e ON e.broadcast_id = t.broadcast_id AND e.site_id = t.site_id AND e.state = t.state
WHERE coalesce(t.n, 0) <> coalesce(e.n, 0)
ORDER BY 1, 2, 3;

-- name: outcomes
-- Every delivery that has ended or was ever in doubt: its id, its state, and whether it ever was in doubt.
SELECT id, state::text AS state, doubts > 0 AS doubted FROM ended WHERE $1::bigint IS NULL OR broadcast_id = $1
UNION ALL
SELECT id, state::text, true FROM queue WHERE doubts > 0 AND ($1::bigint IS NULL OR broadcast_id = $1);

-- name: recipients
-- To whom deliveries $1 go or went.
SELECT id, recipient FROM queue WHERE id = ANY ($1::bigint[])
UNION ALL
SELECT id, recipient FROM ended WHERE id = ANY ($1::bigint[]);
