-- Queries of gateway/store/lists.py. Row-level security limits each to the site of its transaction.

-- name: create_list
-- Makes list $2 of site $1, or nothing where the name is taken.
INSERT INTO list (site_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id, name, 0::bigint, created_at;

-- name: list_by_name
-- List $2 of site $1.
SELECT l.id, l.name, (SELECT count(*) FROM list_member m WHERE m.list_id = l.id), l.created_at
FROM list l WHERE l.site_id = $1 AND l.name = $2;

-- name: lists
-- Up to $3 lists of site $1 after $2.
SELECT l.id, l.name, (SELECT count(*) FROM list_member m WHERE m.list_id = l.id), l.created_at
FROM list l WHERE l.site_id = $1 AND l.id > $2 ORDER BY l.id LIMIT $3;

-- name: list
-- One list.
SELECT l.id, l.name, (SELECT count(*) FROM list_member m WHERE m.list_id = l.id), l.created_at FROM list l WHERE l.id = $1;

-- name: delete_list
-- Removes list $1 and its memberships.
DELETE FROM list WHERE id = $1 RETURNING true;

-- name: add_member
-- Puts contact $2 on list $1, where both are of one site; gives whether they are there.
WITH both_seen AS (
    SELECT l.id AS list_id, c.id AS contact_id, l.site_id FROM list l JOIN contact c ON c.site_id = l.site_id
    WHERE l.id = $1 AND c.id = $2
), added AS (
    INSERT INTO list_member (list_id, contact_id, site_id) SELECT list_id, contact_id, site_id FROM both_seen ON CONFLICT DO NOTHING
)
SELECT count(*) = 1 FROM both_seen;

-- name: remove_member
-- Takes contact $2 off list $1.
DELETE FROM list_member WHERE list_id = $1 AND contact_id = $2 RETURNING true;

-- name: change_list
-- Gives list $1 name $2.
UPDATE list l SET name = $2 WHERE l.id = $1
RETURNING l.id, l.name, (SELECT count(*) FROM list_member m WHERE m.list_id = l.id), l.created_at;

-- name: members
-- Up to $3 contacts on list $1 after $2.
WITH page AS MATERIALIZED (
    -- First who is on the page: joined at once, all contacts before it are walked. As pairs: else the index without the list would do too.
    SELECT m.contact_id FROM list_member m WHERE (m.list_id, m.contact_id) > ($1, $2) AND (m.list_id, m.contact_id) < ($1 + 1, 0)
    ORDER BY m.list_id, m.contact_id LIMIT $3
)
SELECT c.id, c.email, c.first_name, c.last_name, c.phone, c.tags, c.fields, c.source, c.created_at, c.updated_at
FROM page p JOIN contact c ON c.id = p.contact_id ORDER BY c.id;

-- name: add_members
-- Puts those of contacts $2 that are of the site of list $1 on it; gives them.
WITH seen AS (
    SELECT l.id AS list_id, c.id AS contact_id, l.site_id FROM list l JOIN contact c ON c.site_id = l.site_id
    WHERE l.id = $1 AND c.id = ANY ($2::bigint[])
), added AS (
    INSERT INTO list_member (list_id, contact_id, site_id) SELECT list_id, contact_id, site_id FROM seen ORDER BY contact_id
    ON CONFLICT DO NOTHING
)
SELECT contact_id FROM seen;
