-- Queries of gateway/store/sites.py. Row-level security limits each to the site of its transaction.

-- name: create_site
-- Makes a site; operators only.
INSERT INTO site (name, time_zone, campaigns) VALUES ($1, $2, $3)
RETURNING id, name, time_zone, status, campaigns, created_at, NULL::text, NULL::timestamptz;

-- name: sites
-- Up to $2 sites after $1.
SELECT s.id, s.name, s.time_zone, s.status, s.campaigns, s.created_at, h.why, h.created_at AS held_at
FROM site s LEFT JOIN hold h ON h.kind = 'site' AND h.ref = s.id AND (h.until_at IS NULL OR h.until_at > now()) WHERE s.id > $1 ORDER BY s.id LIMIT $2;

-- name: site
-- One site.
SELECT s.id, s.name, s.time_zone, s.status, s.campaigns, s.created_at, h.why, h.created_at AS held_at
FROM site s LEFT JOIN hold h ON h.kind = 'site' AND h.ref = s.id AND (h.until_at IS NULL OR h.until_at > now()) WHERE s.id = $1;

-- name: change_site
-- Gives site $1 name $2, time zone $3 and campaigns $4 (null: as they are); operators only. Null: there is no such site.
UPDATE site SET name = coalesce($2, name), time_zone = coalesce($3, time_zone), campaigns = coalesce($4, campaigns) WHERE id = $1 RETURNING true;

-- name: create_key
-- Makes a key: site $1 (null: an operator's), name $2, prefix $3, SHA-256 $4, scopes $5.
INSERT INTO api_key (site_id, name, prefix, hash, scopes) VALUES ($1, $2, $3, $4, $5)
RETURNING id, site_id, name, prefix, scopes, created_at, last_used_at, revoked_at;

-- name: keys
-- Up to $3 keys of site $1 (null: the operators') after $2.
SELECT id, site_id, name, prefix, scopes, created_at, last_used_at, revoked_at
FROM api_key WHERE site_id IS NOT DISTINCT FROM $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: key
-- Key $1.
SELECT id, site_id, name, prefix, scopes, created_at, last_used_at, revoked_at FROM api_key WHERE id = $1;

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

-- name: hold_site
-- Holds back all deliveries of site $1 because of $2. Null: there is no such site, or it is held already.
INSERT INTO hold AS h (kind, ref, why) SELECT 'site', id, $2 FROM site WHERE id = $1 FOR KEY SHARE
ON CONFLICT (kind, ref) DO UPDATE SET why = excluded.why, until_at = NULL, created_at = now() WHERE h.until_at <= now()
RETURNING true;

-- name: release_site
-- Takes the hold of site $1 away. Null: there was none.
DELETE FROM hold h USING site s WHERE s.id = $1 AND h.kind = 'site' AND h.ref = s.id RETURNING true;

-- name: wake_site
-- Wakes what the hold of site $1 had parked.
SELECT wake_site($1);

-- name: site_backlog
-- How many deliveries of site $1 and priority $2 wait; no more than $3 are counted.
SELECT site_backlog($1, $2::smallint, $3);
