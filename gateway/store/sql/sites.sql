-- Queries of gateway/store/sites.py. Row-level security limits each to the site of its transaction.

-- name: create_site
-- Makes a site; operators only.
INSERT INTO site (name, time_zone, campaigns) VALUES ($1, $2, $3)
RETURNING id, name, time_zone, status, campaigns, created_at;

-- name: sites
-- Up to $2 sites after $1.
SELECT id, name, time_zone, status, campaigns, created_at FROM site WHERE id > $1 ORDER BY id LIMIT $2;

-- name: site
-- One site.
SELECT id, name, time_zone, status, campaigns, created_at FROM site WHERE id = $1;

-- name: create_key
-- Makes a key: site $1 (null: an operator's), name $2, prefix $3, SHA-256 $4, scopes $5.
INSERT INTO api_key (site_id, name, prefix, hash, scopes) VALUES ($1, $2, $3, $4, $5)
RETURNING id, site_id, name, prefix, scopes, created_at, last_used_at, revoked_at;

-- name: keys
-- Up to $3 keys of site $1 (null: the operators') after $2.
SELECT id, site_id, name, prefix, scopes, created_at, last_used_at, revoked_at
FROM api_key WHERE site_id IS NOT DISTINCT FROM $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: revoke_key
-- Ends key $1, once.
UPDATE api_key SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1
RETURNING id, site_id, name, prefix, scopes, created_at, last_used_at, revoked_at;

-- name: find_key
-- The key with prefix $1 that is not revoked, before any site is known.
SELECT id, site_id, hash, scopes, site_status, campaigns FROM find_key($1);

-- name: touch_keys
-- Notes that keys $1 were used now.
SELECT touch_keys($1);
