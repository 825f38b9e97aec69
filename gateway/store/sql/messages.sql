-- Queries of gateway/store/messages.py. Row-level security limits each to the site of its transaction.

-- name: message
-- One message, without its bodies.
SELECT id, stream::text, sender, subject, template, created_at FROM message WHERE id = $1;

-- name: messages
-- Up to $3 messages of site $1 after $2.
SELECT id, stream::text, sender, subject, template, created_at FROM message WHERE site_id = $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: deliveries
-- Up to $3 deliveries of message $1 after $2, open and ended, with what was last said about each.
WITH accepted AS MATERIALIZED (
    SELECT id * 1024 AS first, id * 1024 + deliveries - 1 AS last, accepted_at FROM acceptance
    WHERE message_id = $1 AND id * 1024 + deliveries - 1 > $2 ORDER BY id LIMIT $3
)
SELECT id, recipient, state, attempts, code, enhanced, reply, bounce_class, next_at, expires_at, ended_at
FROM (
    SELECT q.id, q.recipient, q.state::text AS state, q.attempts, NULL::smallint AS code, NULL::text AS enhanced, q.last_reply AS reply,
           q.last_class AS bounce_class, CASE WHEN q.state IN ('deferred', 'in_doubt') THEN q.due_at END AS next_at,
           q.expires_at, NULL::timestamptz AS ended_at
    FROM accepted a CROSS JOIN LATERAL (
        SELECT * FROM queue q WHERE q.id BETWEEN greatest(a.first, $2 + 1) AND a.last ORDER BY q.id LIMIT $3) q
    UNION ALL
    SELECT e.id, e.recipient, e.state::text, e.attempts, e.code, e.enhanced, e.reply, e.bounce_class, NULL, NULL, e.ended_at
    FROM accepted a CROSS JOIN LATERAL (
        SELECT * FROM ended e WHERE e.id BETWEEN greatest(a.first, $2 + 1) AND a.last AND e.accepted_at = a.accepted_at
        ORDER BY e.id LIMIT $3) e
) both_kinds
ORDER BY id LIMIT $3;

-- name: events
-- What happened to deliveries $1, in order.
SELECT delivery_id, kind, at, attempt, code, enhanced, reply, bounce_class FROM event WHERE delivery_id = ANY ($1::bigint[]) ORDER BY at;

-- name: content_of_delivery
-- HTML and text of the message of acceptance $1, and whether they are a template.
SELECT m.html, m.text, m.template <> '' AS is_template FROM acceptance a JOIN message m ON m.id = a.message_id WHERE a.id = $1;
