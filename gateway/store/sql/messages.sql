-- Queries of gateway/store/messages.py. Row-level security limits each to the site of its transaction.

-- name: message
-- One message, without its bodies, and the broadcast that it belongs to.
SELECT m.id, m.site_id, m.stream::text, m.sender, m.subject, m.template, m.created_at,
       (SELECT b.id FROM broadcast b WHERE b.message_id = m.id) AS broadcast_id
FROM message m WHERE m.id = $1;

-- name: by_index
-- From here to the end of the transaction plans walk indexes: with old statistics all messages of a site were read and sorted for a
-- page. And they are kept: planning over the days' partitions anew took longer than a page (0.7 of 2 ms).
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('plan_cache_mode', 'force_generic_plan', true);

-- name: messages
-- Up to $6 messages of site $1 between ids $2 and $3, among the next $4, of which only as many are looked at as have $5 recipients
-- together. With filters: stream $7, created from $8 and before $9, a delivery in state $10, to address $11 (in lower case); a
-- broadcast's message has too many deliveries to be found by the last two. Beside each row: up to which id was looked, and whether
-- there may be more behind it; a row without an id says nothing else.
WITH looked AS MATERIALIZED (
    SELECT m.id, m.stream, m.sender, m.subject, m.template, m.created_at
    -- Compared as pairs: with site_id = $1 the primary key would do too, and the messages of all other sites be walked.
    FROM message m WHERE (m.site_id, m.id) > ($1, $2) AND (m.site_id, m.id) < ($1, $3) ORDER BY m.site_id, m.id LIMIT $4
), sized AS MATERIALIZED (
    SELECT l.*, a.id * 1024 AS first, a.deliveries, a.accepted_at, a.broadcast_id,
           sum(coalesce(a.deliveries, 0)) OVER (ORDER BY l.id) - coalesce(a.deliveries, 0) AS recipients_before
    FROM looked l LEFT JOIN LATERAL (SELECT * FROM acceptance a WHERE a.message_id = l.id LIMIT 1) a ON true
), reached AS (
    SELECT max(s.id) FILTER (WHERE s.recipients_before < $5) AS until,
           count(*) >= $4 OR coalesce(bool_or(s.recipients_before >= $5), false) AS more
    FROM sized s
), fitting AS (
    SELECT s.* FROM sized s
    WHERE s.recipients_before < $5
      AND ($7::text IS NULL OR s.stream::text = $7)
      AND ($8::timestamptz IS NULL OR s.created_at >= $8)
      AND ($9::timestamptz IS NULL OR s.created_at < $9)
      AND ($10::text IS NULL AND $11::text IS NULL OR s.broadcast_id = 0 AND (
            EXISTS (SELECT FROM queue q WHERE q.id BETWEEN s.first AND s.first + s.deliveries - 1
                       AND ($10 IS NULL OR q.state::text = $10) AND ($11 IS NULL OR lower(q.recipient) = $11))
            OR EXISTS (SELECT FROM ended e WHERE e.id BETWEEN s.first AND s.first + s.deliveries - 1 AND e.accepted_at = s.accepted_at
                       AND ($10 IS NULL OR e.state::text = $10) AND ($11 IS NULL OR lower(e.recipient) = $11))))
    ORDER BY s.id LIMIT $6
)
SELECT r.until, r.more, f.id, f.stream::text, f.sender, f.subject, f.template, f.created_at,
       CASE WHEN f.broadcast_id <> 0 THEN f.broadcast_id END AS broadcast_id, CASE WHEN f.broadcast_id = 0 THEN f.deliveries END AS recipients,
       coalesce(q.recipient, e.recipient) AS first_recipient, coalesce(q.state, e.state)::text AS first_state
FROM reached r LEFT JOIN fitting f ON true
LEFT JOIN LATERAL (SELECT q.recipient, q.state FROM queue q WHERE q.id = f.first AND f.broadcast_id = 0) q ON true
LEFT JOIN LATERAL (
    SELECT e.recipient, e.state FROM ended e WHERE e.id = f.first AND e.accepted_at = f.accepted_at AND f.broadcast_id = 0) e ON true
ORDER BY f.id;

-- name: message_at
-- About the first message of site $1 that was created at $2 or later: ids and times are in the same order but for some seconds.
SELECT message_at($1, $2);

-- name: deliveries
-- Up to $3 deliveries of message $1 after $2, open and ended, with what was last said about each.
WITH accepted AS MATERIALIZED (
    SELECT id * 1024 AS first, id * 1024 + deliveries - 1 AS last, accepted_at FROM acceptance
    WHERE message_id = $1 AND id * 1024 + deliveries - 1 > $2 ORDER BY id LIMIT $3
)
SELECT id, recipient, state, attempts, code, enhanced, reply, bounce_class, accepted_at, next_at, expires_at, ended_at
FROM (
    SELECT q.id, q.recipient, q.state::text AS state, q.attempts, NULL::smallint AS code, NULL::text AS enhanced, q.last_reply AS reply,
           q.last_class AS bounce_class, q.accepted_at, CASE WHEN q.state IN ('deferred', 'in_doubt') THEN q.due_at END AS next_at,
           q.expires_at, NULL::timestamptz AS ended_at
    FROM accepted a CROSS JOIN LATERAL (
        SELECT * FROM queue q WHERE q.id BETWEEN a.first AND a.last AND q.id > $2 ORDER BY q.id LIMIT $3) q
    UNION ALL
    SELECT e.id, e.recipient, e.state::text, e.attempts, e.code, e.enhanced, e.reply, e.bounce_class, e.accepted_at, NULL, NULL, e.ended_at
    FROM accepted a CROSS JOIN LATERAL (
        SELECT * FROM ended e WHERE e.id BETWEEN a.first AND a.last AND e.id > $2 AND e.accepted_at = a.accepted_at
        ORDER BY e.id LIMIT $3) e
) both_kinds
ORDER BY id LIMIT $3;

-- name: events
-- What happened to deliveries $1 since $2, in order, the latest $3: no other days are looked into.
SELECT delivery_id, kind, at, attempt, code, enhanced, reply, bounce_class
FROM (SELECT * FROM event WHERE delivery_id = ANY ($1::bigint[]) AND at >= $2 AND at < now() + interval '1 hour'
      ORDER BY at DESC LIMIT $3) latest ORDER BY at;

-- name: counts
-- How many deliveries of broadcast $1 were accepted ('accepted'), and how many have ended in each state.
SELECT 'accepted' AS entry, coalesce(sum(deliveries), 0)::bigint AS n FROM acceptance WHERE broadcast_id = $1
UNION ALL
SELECT state::text, sum(n)::bigint FROM tally WHERE broadcast_id = $1 GROUP BY state;

-- name: cancel_message
-- Ends what of message $1 has not been begun; how many.
SELECT cancel_message($1);

-- name: hold_message
-- Holds what of message $1 waits to be sent; how many.
SELECT hold_message($1);

-- name: release_message
-- Lets what is held of message $1 go on; how many.
SELECT release_message($1);

-- name: content_of_delivery
-- HTML and text of the message of acceptance $1, and whether they are a template.
SELECT m.html, m.text, m.template <> '' AS is_template FROM acceptance a JOIN message m ON m.id = a.message_id WHERE a.id = $1;
