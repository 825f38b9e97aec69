-- Queries of gateway/store/templates.py. Row-level security limits each to the site of its transaction.

-- name: create_template
-- Makes a template of site $1.
INSERT INTO template (site_id, name, subject, html, text) VALUES ($1, $2, $3, $4, $5)
RETURNING id, name, version, subject, html, text, created_at, updated_at;

-- name: change_template
-- Gives template $1 new content, as its next version.
UPDATE template SET name = $2, subject = $3, html = $4, text = $5, version = version + 1, updated_at = now() WHERE id = $1
RETURNING id, name, version, subject, html, text, created_at, updated_at;

-- name: templates
-- Up to $3 templates of site $1 after $2.
SELECT id, name, version, subject, html, text, created_at, updated_at
FROM template WHERE site_id = $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: template
-- One template.
SELECT id, name, version, subject, html, text, created_at, updated_at FROM template WHERE id = $1;
