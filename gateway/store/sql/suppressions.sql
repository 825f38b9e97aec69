-- Queries of gateway/store/suppressions.py. Row-level security limits each to the site of its transaction.

-- name: suppressions
-- Up to $4 suppressions of site $1 after address $2 and scope $3.
SELECT email_key, scope, reason, evidence, delivery_id, created_at
FROM suppression WHERE site_id = $1 AND (email_key, scope) > ($2, $3) ORDER BY email_key, scope LIMIT $4;

-- name: add_suppression
-- Suppresses address $2 of site $1 in scope $3 because of $4, with evidence $5; what is there stays. Nothing for a site that is no more:
-- its row is held until the commit, so that it cannot be deleted meanwhile.
INSERT INTO suppression AS s (site_id, email_key, scope, reason, evidence)
SELECT id, lower($2), $3, $4, $5 FROM site WHERE id = $1 FOR KEY SHARE
ON CONFLICT (site_id, email_key, scope) DO UPDATE SET reason = s.reason
RETURNING email_key, scope, reason, evidence, delivery_id, created_at;

-- name: remove_suppression
-- Lets address $2 of site $1 be written to again in scope $3, or in all when it is null; gives how many there were.
WITH gone AS (
    DELETE FROM suppression WHERE site_id = $1 AND email_key = lower($2) AND ($3::text IS NULL OR scope = $3) RETURNING 1
)
SELECT count(*) FROM gone;
