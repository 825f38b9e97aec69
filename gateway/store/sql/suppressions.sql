-- Queries of gateway/store/suppressions.py. Row-level security limits each to the site of its transaction.

-- name: suppressions
-- Of the next $7 suppressions of site $1 after address $2 and scope $3 up to $4 that fit: in scope $5 and for reason $6 (null: any). Beside
-- each: up to where was looked, and at how many; a row without an address says nothing else.
WITH looked AS MATERIALIZED (
    SELECT email_key, scope, reason, evidence, delivery_id, created_at FROM suppression
    WHERE site_id = $1 AND (email_key, scope) > ($2, $3) ORDER BY email_key, scope LIMIT $7
), reached AS (
    SELECT (SELECT count(*) FROM looked) AS looked, l.email_key AS until_email, l.scope AS until_scope
    FROM looked l ORDER BY l.email_key DESC, l.scope DESC LIMIT 1
), fitting AS (
    SELECT l.* FROM looked l WHERE ($5::text IS NULL OR l.scope = $5) AND ($6::text IS NULL OR l.reason = $6)
    ORDER BY l.email_key, l.scope LIMIT $4
)
SELECT r.looked, r.until_email, r.until_scope, f.* FROM reached r LEFT JOIN fitting f ON true ORDER BY f.email_key, f.scope;

-- name: of_address
-- The suppressions of address $2 of site $1.
SELECT email_key, scope, reason, evidence, delivery_id, created_at
FROM suppression WHERE site_id = $1 AND email_key = lower($2) ORDER BY scope;

-- name: add_suppression
-- Suppresses address $2 of site $1 in scope $3 because of $4, with evidence $5; what is there stays. Nothing for a site that is no more:
-- its row is held until the commit, so that it cannot be deleted meanwhile.
INSERT INTO suppression AS s (site_id, email_key, scope, reason, evidence)
SELECT id, lower($2), $3, $4, $5 FROM site WHERE id = $1 FOR KEY SHARE
ON CONFLICT (site_id, email_key, scope) DO UPDATE SET reason = s.reason
RETURNING email_key, scope, reason, evidence, delivery_id, created_at;

-- name: add_suppressions
-- Suppresses addresses $2 of site $1 in scopes $3 because of $4, with evidence $5; what is there stays. Gives how many are new. In their
-- order, so that two imports at once do not deadlock.
WITH added AS (
    INSERT INTO suppression (site_id, email_key, scope, reason, evidence)
    SELECT $1, lower(g.email), g.scope, g.reason, g.evidence
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) g(email, scope, reason, evidence) ORDER BY lower(g.email), g.scope
    ON CONFLICT DO NOTHING RETURNING 1
)
SELECT count(*) FROM added;

-- name: remove_suppression
-- Lets address $2 of site $1 be written to again in scope $3, or in all when it is null; gives how many there were.
WITH gone AS (
    DELETE FROM suppression WHERE site_id = $1 AND email_key = lower($2) AND ($3::text IS NULL OR scope = $3) RETURNING 1
)
SELECT count(*) FROM gone;
