-- Queries of gateway/store/broadcasts.py. Those of apps run under row-level security, those of the scheduler see all.

-- name: create_broadcast
-- Makes a draft of site $1.
INSERT INTO broadcast (site_id, name, list_id, template_id, domain_id, sender, reply_to, expires_in_s)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
RETURNING id, site_id, name, list_id, template_id, domain_id, sender, reply_to, state::text, paused_by, message_id, expires_in_s,
          audience_until, cursor, expanded, created_at, scheduled_at, started_at, ended_at, detail;

-- name: broadcasts
-- Up to $3 broadcasts of site $1 after $2.
SELECT id, site_id, name, list_id, template_id, domain_id, sender, reply_to, state::text, paused_by, message_id, expires_in_s,
       audience_until, cursor, expanded, created_at, scheduled_at, started_at, ended_at, detail
FROM broadcast WHERE site_id = $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: broadcast
-- One broadcast.
SELECT id, site_id, name, list_id, template_id, domain_id, sender, reply_to, state::text, paused_by, message_id, expires_in_s,
       audience_until, cursor, expanded, created_at, scheduled_at, started_at, ended_at, detail
FROM broadcast WHERE id = $1;

-- name: lock_broadcast
-- One broadcast, until the end of the transaction its own.
SELECT id, site_id, name, list_id, template_id, domain_id, sender, reply_to, state::text, paused_by, message_id, expires_in_s,
       audience_until, cursor, expanded, created_at, scheduled_at, started_at, ended_at, detail
FROM broadcast WHERE id = $1 FOR NO KEY UPDATE;

-- name: set_state
-- Broadcast $1 is in state $2 now, paused by $3. A draft that is cancelled has nothing left to end.
UPDATE broadcast SET state = $2::text::broadcast_state, paused_by = $3,
       ended_at = CASE WHEN $2::text = 'cancelled' AND started_at IS NULL THEN now() ELSE ended_at END
WHERE id = $1
RETURNING id, site_id, name, list_id, template_id, domain_id, sender, reply_to, state::text, paused_by, message_id, expires_in_s,
          audience_until, cursor, expanded, created_at, scheduled_at, started_at, ended_at, detail;

-- name: pin_message
-- The content of broadcast $1's template, as it is now, as message $2.
INSERT INTO message (id, site_id, domain_id, stream, sender, reply_to, subject, html, text, template)
SELECT $2, b.site_id, b.domain_id, 'marketing', b.sender, b.reply_to, t.subject, t.html, t.text, t.id || '@' || t.version
FROM broadcast b JOIN template t ON t.id = b.template_id WHERE b.id = $1;

-- name: freeze
-- Launches broadcast $1 with message $2: its audience ends at the last member that its list has now.
UPDATE broadcast b SET state = 'preparing', message_id = $2, started_at = now(), paused_by = '',
       audience_until = (SELECT coalesce(max(m.seq), 0) FROM list_member m WHERE m.list_id = b.list_id)
WHERE b.id = $1
RETURNING id, site_id, name, list_id, template_id, domain_id, sender, reply_to, state::text, paused_by, message_id, expires_in_s,
          audience_until, cursor, expanded, created_at, scheduled_at, started_at, ended_at, detail;

-- name: hold
-- Holds back broadcast $1, if the transaction may see it, because of $2.
INSERT INTO hold AS h (kind, ref, why) SELECT 'broadcast', b.id, $2 FROM broadcast b WHERE b.id = $1
ON CONFLICT (kind, ref) DO UPDATE SET why = excluded.why;

-- name: unhold
-- Takes the pause of broadcast $1 away, if the transaction may see it; a cancel stays.
DELETE FROM hold h USING broadcast b WHERE b.id = $1 AND h.kind = 'broadcast' AND h.ref = b.id AND h.why <> 'cancelled';

-- name: wake_broadcast
-- Wakes what a hold had parked.
SELECT wake_broadcast($1);

-- name: counts
-- Both sides of broadcast $1's books in one snapshot, but for the ready ones.
SELECT 'accepted' AS entry, coalesce(sum(deliveries), 0)::bigint AS n FROM acceptance WHERE broadcast_id = $1
UNION ALL
SELECT state::text, sum(n)::bigint FROM tally WHERE broadcast_id = $1 GROUP BY state
UNION ALL
SELECT state::text, n FROM broadcast_waiting($1);

-- name: working
-- Launched broadcasts that have not ended.
SELECT id, site_id, name, list_id, template_id, domain_id, sender, reply_to, state::text, paused_by, message_id, expires_in_s,
       audience_until, cursor, expanded, created_at, scheduled_at, started_at, ended_at, detail
FROM broadcast WHERE state IN ('preparing', 'sending', 'paused', 'cancelled') AND ended_at IS NULL AND started_at IS NOT NULL ORDER BY id;

-- name: lock_to_expand
-- Broadcast $1, if it is to be expanded and no other scheduler is just doing that.
SELECT id, site_id, name, list_id, template_id, domain_id, sender, reply_to, state::text, paused_by, message_id, expires_in_s,
       audience_until, cursor, expanded, created_at, scheduled_at, started_at, ended_at, detail
FROM broadcast WHERE id = $1 AND state IN ('preparing', 'sending') AND NOT expanded FOR NO KEY UPDATE SKIP LOCKED;

-- name: audience
-- Up to $4 members of list $1 after place $2 up to place $3, with what a template may say of them.
SELECT m.seq, c.email, c.domain,
       (c.fields || jsonb_build_object('email', c.email, 'first_name', c.first_name, 'last_name', c.last_name, 'phone', c.phone))::text
FROM list_member m JOIN contact c ON c.id = m.contact_id
WHERE m.list_id = $1 AND m.seq > $2 AND m.seq <= $3 ORDER BY m.seq LIMIT $4;

-- name: advance
-- Broadcast $1 has been expanded up to place $2 of its list, and wholly when $3.
UPDATE broadcast SET cursor = $2, expanded = $3, state = CASE WHEN $3 AND state = 'preparing' THEN 'sending' ELSE state END WHERE id = $1;

-- name: complete
-- Ends broadcast $1 if all that it accepted has ended: every one that is expanded, or cancelled.
UPDATE broadcast b SET state = CASE state WHEN 'sending' THEN 'completed' ELSE state END, ended_at = now()
WHERE b.id = $1 AND b.ended_at IS NULL AND ((b.state = 'sending' AND b.expanded) OR b.state = 'cancelled')
  AND (SELECT coalesce(sum(a.deliveries), 0) FROM acceptance a WHERE a.broadcast_id = b.id)
    = (SELECT coalesce(sum(t.n), 0) FROM tally t WHERE t.broadcast_id = b.id)
RETURNING true;

-- name: cancel_rows
-- Ends some waiting deliveries of cancelled broadcast $1.
SELECT cancel_broadcast_rows($1, $2, pg_backend_pid());

-- name: change_broadcast
-- Gives draft $1 another name $2, list $3, template $4, domain $5, sender $6, Reply-To $7 and lifetime $8.
UPDATE broadcast SET name = $2, list_id = $3, template_id = $4, domain_id = $5, sender = $6, reply_to = $7, expires_in_s = $8
WHERE id = $1 AND state = 'draft'
RETURNING id, site_id, name, list_id, template_id, domain_id, sender, reply_to, state::text, paused_by, message_id, expires_in_s,
          audience_until, cursor, expanded, created_at, scheduled_at, started_at, ended_at, detail;

-- name: delete_broadcast
-- Removes draft $1.
DELETE FROM broadcast WHERE id = $1 AND state = 'draft' RETURNING true;

-- name: schedule
-- Broadcast $1 is to be launched at $2.
UPDATE broadcast SET state = 'scheduled', scheduled_at = $2 WHERE id = $1
RETURNING id, site_id, name, list_id, template_id, domain_id, sender, reply_to, state::text, paused_by, message_id, expires_in_s,
          audience_until, cursor, expanded, created_at, scheduled_at, started_at, ended_at, detail;

-- name: fail
-- Broadcast $1 has failed, because of $2.
UPDATE broadcast SET state = 'failed', detail = $2, ended_at = now() WHERE id = $1
RETURNING id, site_id, name, list_id, template_id, domain_id, sender, reply_to, state::text, paused_by, message_id, expires_in_s,
          audience_until, cursor, expanded, created_at, scheduled_at, started_at, ended_at, detail;

-- name: due
-- Up to $2 scheduled broadcasts whose time has come at $1, the earliest first.
SELECT id, site_id, name, list_id, template_id, domain_id, sender, reply_to, state::text, paused_by, message_id, expires_in_s,
       audience_until, cursor, expanded, created_at, scheduled_at, started_at, ended_at, detail
FROM broadcast WHERE state = 'scheduled' AND scheduled_at <= $1 ORDER BY scheduled_at LIMIT $2;

-- name: lock_due
-- Broadcast $1, if its time has come at $2 and no other scheduler is just launching it.
SELECT true FROM broadcast WHERE id = $1 AND state = 'scheduled' AND scheduled_at <= $2 FOR NO KEY UPDATE SKIP LOCKED;

-- name: excluded
-- The members of list $1 up to place $3, counted by why nothing is sent to them (null: it is): suppressions of site $2, of all mail first.
SELECT coalesce(a.reason, o.reason) AS reason, count(*)::bigint AS n
FROM list_member m JOIN contact c ON c.id = m.contact_id
-- One join for each scope: of a short list's members each is looked up, and a long one's are hashed.
LEFT JOIN suppression a ON a.site_id = $2 AND a.email_key = c.email_key AND a.scope = 'all'
LEFT JOIN suppression o ON o.site_id = $2 AND o.email_key = c.email_key AND o.scope = 'marketing'
WHERE m.list_id = $1 AND m.seq <= $3 GROUP BY 1;

-- name: deliveries
-- Up to $4 deliveries of broadcast $1 after $2, in state $3 (null: in any), among its next $5 acceptances. Beside each: up to which id was
-- looked, and how many acceptances that were; a row without an id says nothing else.
WITH looked AS MATERIALIZED (
    SELECT id * 1024 AS first, id * 1024 + deliveries - 1 AS last, accepted_at FROM acceptance
    WHERE broadcast_id = $1 AND broadcast_id <> 0 AND id >= $2::bigint / 1024 AND id * 1024 + deliveries - 1 > $2 ORDER BY id LIMIT $5
), found AS (
    SELECT q.id, q.recipient, q.state::text AS state, q.attempts, NULL::smallint AS code, NULL::text AS enhanced, q.last_reply AS reply,
           q.last_class AS bounce_class, q.accepted_at, CASE WHEN q.state IN ('deferred', 'in_doubt') THEN q.due_at END AS next_at,
           q.expires_at, NULL::timestamptz AS ended_at
    FROM looked a CROSS JOIN LATERAL (
        SELECT * FROM queue q WHERE q.id BETWEEN a.first AND a.last AND q.id > $2 AND ($3::text IS NULL OR q.state::text = $3)
        ORDER BY q.id LIMIT $4) q
    UNION ALL
    SELECT e.id, e.recipient, e.state::text, e.attempts, e.code, e.enhanced, e.reply, e.bounce_class, e.accepted_at, NULL, NULL, e.ended_at
    FROM looked a CROSS JOIN LATERAL (
        SELECT * FROM ended e WHERE e.id BETWEEN a.first AND a.last AND e.id > $2 AND e.accepted_at = a.accepted_at
            AND ($3::text IS NULL OR e.state::text = $3)
        ORDER BY e.id LIMIT $4) e
    ORDER BY id LIMIT $4
), reached AS (
    SELECT max(last) AS until, count(*) AS looked FROM looked
)
SELECT r.until, r.looked, f.id, f.recipient, f.state, f.attempts, f.code, f.enhanced, f.reply, f.bounce_class, f.accepted_at, f.next_at,
       f.expires_at, f.ended_at
FROM reached r LEFT JOIN found f ON true ORDER BY f.id;
