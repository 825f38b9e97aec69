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

-- name: add_key
-- Adds a key to domain $1 of site $2: selector, algorithm, sealed private key, DKIM record, whether it signs.
INSERT INTO domain_key (domain_id, site_id, selector, algorithm, private_key_sealed, public_key, signs) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: keys
-- The keys of some domains beside the one that always signs, the oldest first.
SELECT domain_id, selector, algorithm, public_key, signs FROM domain_key WHERE domain_id = ANY ($1::integer[]) ORDER BY domain_id, id;

-- name: rotate
-- The spare key of domain $1 signs from now on, and the one that signed is the spare: both records stay published. No row: no spare.
WITH old AS (
    SELECT id, selector, private_key_sealed, public_key FROM domain WHERE id = $1 FOR UPDATE
), spare AS (
    SELECT k.* FROM domain_key k JOIN domain d ON d.id = k.domain_id
    WHERE k.domain_id = $1 AND NOT k.signs AND k.algorithm = d.algorithm ORDER BY k.id LIMIT 1 FOR UPDATE OF k
), put_back AS (
    UPDATE domain_key k SET selector = o.selector, private_key_sealed = o.private_key_sealed, public_key = o.public_key
    FROM old o, spare s WHERE k.id = s.id
)
UPDATE domain d SET selector = s.selector, private_key_sealed = s.private_key_sealed, public_key = s.public_key
FROM spare s, old o WHERE d.id = o.id
RETURNING d.id, d.site_id, d.name, d.status, d.selector, d.public_key, d.created_at, d.verified_at;

-- name: domain_named
-- The sending domain with name $1, whichever site has it.
SELECT id, site_id, name, status, selector, public_key, created_at, verified_at FROM domain WHERE name = $1;
