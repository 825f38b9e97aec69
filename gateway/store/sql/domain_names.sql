-- Queries of gateway/store/domain_names.py.

-- name: domain_named
-- The id of the sending domain with name $1.
SELECT id FROM domain WHERE name = $1;
