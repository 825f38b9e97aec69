-- Queries of gateway/store/tenancy.py.

-- name: set_site
-- From here to the end of the transaction, row-level security shows site $1 alone; '*' shows all.
SELECT set_config('gateway.site_id', $1, true);

-- name: who_am_i
-- The role of this connection.
SELECT current_user::text;
