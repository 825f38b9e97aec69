-- Queries of gateway/store/domains.py. Row-level security limits each to the site of its transaction.

-- name: create_domain
-- Adds domain $2 to site $1 with selector $3, sealed private key $4 and DKIM record $5.
INSERT INTO domain (site_id, name, selector, private_key_sealed, public_key) VALUES ($1, $2, $3, $4, $5)
RETURNING id, site_id, name, status, selector, public_key, created_at, verified_at;

-- name: domains
-- Up to $3 domains of site $1 after $2.
SELECT id, site_id, name, status, selector, public_key, created_at, verified_at
FROM domain WHERE site_id = $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: domain
-- One domain.
SELECT id, site_id, name, status, selector, public_key, created_at, verified_at FROM domain WHERE id = $1;

-- name: mark_verified
-- Takes domain $1 for verified.
UPDATE domain SET status = 'verified', verified_at = coalesce(verified_at, now()) WHERE id = $1
RETURNING id, site_id, name, status, selector, public_key, created_at, verified_at;

-- name: verified_domain
-- The id of domain $2, if it is a verified one of site $1.
SELECT id FROM domain WHERE site_id = $1 AND name = $2 AND status = 'verified';
