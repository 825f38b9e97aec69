-- Queries of gateway/store/suppression_lists.py. Row-level security limits each to the site of its transaction.

-- name: add_suppressions
-- Suppresses addresses $2 of site $1, each in its scope ($3) because of its reason ($4) with its evidence ($5); what is there stays. Gives how
-- many are new. Nothing for a site that is no more.
WITH owner AS (
    SELECT id FROM site WHERE id = $1 FOR KEY SHARE
), added AS (
    INSERT INTO suppression (site_id, email_key, scope, reason, evidence)
    SELECT o.id, lower(g.email), g.scope, g.reason, g.evidence
    FROM owner o CROSS JOIN unnest($2::text[], $3::text[], $4::text[], $5::text[]) g(email, scope, reason, evidence)
    ON CONFLICT (site_id, email_key, scope) DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM added;

-- name: count_suppressions
-- How many suppressions site $1 has.
SELECT count(*) FROM suppression WHERE site_id = $1;
