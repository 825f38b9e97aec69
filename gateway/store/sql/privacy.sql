-- Queries of gateway/store/privacy.py. Row-level security limits those of an app to the site of its transaction.

-- name: begin_erasure
-- Asks that address $2 of site $1 be forgotten, $3 seconds from now: what is being accepted just now is then committed.
INSERT INTO erasure (site_id, address, until_id, due_at)
SELECT $1, lower($2), s.last_value, now() + make_interval(secs => $3) FROM acceptance_id s
RETURNING id, deliveries, created_at, ended_at;

-- name: forget_contact
-- Removes the contact with address $2 of site $1, its memberships, and refused values of imports that are this address.
WITH refused AS (
    UPDATE import_error e SET value = '' FROM import i WHERE i.site_id = $1 AND e.import_id = i.id AND lower(e.value) = lower($2)
)
DELETE FROM contact WHERE site_id = $1 AND email_key = lower($2);

-- name: erasures
-- Up to $3 erasures of site $1 after $2.
SELECT id, deliveries, created_at, ended_at FROM erasure WHERE site_id = $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: erasure
-- One erasure.
SELECT id, deliveries, created_at, ended_at FROM erasure WHERE id = $1;

-- name: erase_step
-- Does a part of an erasure that is due: looks at about $1 deliveries; looks again after $2 seconds for those that are open.
SELECT erasure, forgotten, is_last FROM erase_step($1, $2);

-- name: lists_of
-- The lists that contact $1 is on, by id.
SELECT l.id, l.name, m.added_at FROM list_member m JOIN list l ON l.id = m.list_id WHERE m.contact_id = $1 ORDER BY l.id;

-- name: place_of
-- The message of acceptance $1; nothing when there is none.
SELECT message_id FROM acceptance WHERE id = $1;

-- name: sent_to
-- What site $1 sent to address $2, among $5 deliveries behind message $3 and acceptance $4. Beside each the last acceptance that was looked
-- at, and whether there may be more; a row without an id says nothing else.
WITH looked AS MATERIALIZED (
    SELECT * FROM site_acceptances($1, $3, $4, 9223372036854775807, $5)
), reached AS (
    SELECT coalesce(sum(deliveries), 0) >= $5 AS more, (array_agg(id ORDER BY message_id DESC, id DESC))[1] AS until FROM looked
), found AS (
    SELECT l.message_id, l.id AS acceptance, l.broadcast_id, l.accepted_at, d.id, d.state, d.ended_at
    FROM looked l CROSS JOIN LATERAL (
        SELECT q.id, q.recipient, q.state, NULL::timestamptz AS ended_at FROM queue q
        WHERE q.id BETWEEN l.id * 1024 AND l.id * 1024 + l.deliveries - 1
        UNION ALL
        SELECT e.id, e.recipient, e.state, e.ended_at FROM ended e
        WHERE e.id BETWEEN l.id * 1024 AND l.id * 1024 + l.deliveries - 1 AND e.accepted_at = l.accepted_at) d
    WHERE lower(d.recipient) = lower($2)
)
SELECT r.until, r.more, f.id, f.message_id, nullif(f.broadcast_id, 0) AS broadcast_id, m.stream::text, m.sender, m.subject,
       f.state::text, f.accepted_at, f.ended_at
FROM reached r LEFT JOIN found f ON true LEFT JOIN message m ON m.id = f.message_id
ORDER BY f.message_id, f.id;
