-- Queries of gateway/store/idempotency.py.

-- name: reserve_key
-- Takes key $2 of site $1 for the request with digest $3; waits for whoever is just using it. Null: it is taken.
INSERT INTO idempotency (site_id, key, body_hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING true;

-- name: stored_answer
-- What is stored under key $2 of site $1.
SELECT body_hash, status, answer, suppressed FROM idempotency WHERE site_id = $1 AND key = $2 AND status IS NOT NULL;

-- name: store_answer
-- Stores status $3 and answer $4 under key $2 of site $1.
UPDATE idempotency SET status = $3::smallint, answer = $4 WHERE site_id = $1 AND key = $2;
