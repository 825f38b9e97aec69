-- Queries of gateway/store/contacts.py. Row-level security limits each to the site of its transaction.

-- name: merge_contacts
-- Makes or merges contacts of site $1 from source $3, columns $4 to $10 (tags and fields as JSON), and puts them on list
-- $2 unless it is null. Gives how many were made and how many merged.
WITH given AS (
    SELECT * FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
        WITH ORDINALITY AS g(email, domain, first_name, last_name, phone, tags, fields, place)
), written AS (
    INSERT INTO contact AS c (site_id, email, domain, first_name, last_name, phone, tags, fields, source)
    SELECT $1, email, domain, first_name, last_name, phone,
           CASE tags WHEN '[]' THEN '{}' ELSE ARRAY(SELECT jsonb_array_elements_text(tags::jsonb)) END, fields::jsonb, $3
    FROM given ORDER BY place
    ON CONFLICT (site_id, email_key) DO UPDATE SET
        first_name = coalesce(nullif(excluded.first_name, ''), c.first_name),
        last_name = coalesce(nullif(excluded.last_name, ''), c.last_name),
        phone = coalesce(nullif(excluded.phone, ''), c.phone),
        tags = CASE WHEN excluded.tags <@ c.tags THEN c.tags
                    ELSE c.tags || ARRAY(SELECT t FROM unnest(excluded.tags) t WHERE t <> ALL (c.tags)) END,
        fields = c.fields || excluded.fields,
        updated_at = now()
    RETURNING c.id, c.xmax = 0 AS is_new
), listed AS (
    INSERT INTO list_member (list_id, contact_id, site_id)
    SELECT $2, id, $1 FROM written WHERE $2::integer IS NOT NULL ORDER BY id
    ON CONFLICT DO NOTHING
)
SELECT count(*) FILTER (WHERE is_new)::integer AS created, count(*) FILTER (WHERE NOT is_new)::integer AS merged FROM written;

-- name: create_contact
-- Makes one contact of site $1, or nothing where the address is taken.
INSERT INTO contact (site_id, email, domain, first_name, last_name, phone, tags, fields, source)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, 'api')
ON CONFLICT DO NOTHING
RETURNING id, email, first_name, last_name, phone, tags, fields, source, created_at, updated_at;

-- name: contacts
-- Up to $3 contacts of site $1 after $2; with $4 only the one with that address.
SELECT id, email, first_name, last_name, phone, tags, fields, source, created_at, updated_at
FROM contact WHERE site_id = $1 AND id > $2 AND ($4::text IS NULL OR email_key = lower($4)) ORDER BY id LIMIT $3;

-- name: contact
-- One contact.
SELECT id, email, first_name, last_name, phone, tags, fields, source, created_at, updated_at FROM contact WHERE id = $1;

-- name: delete_contact
-- Removes contact $1 and its memberships.
DELETE FROM contact WHERE id = $1 RETURNING true;

-- name: begin_import
-- Notes that an import of site $1 into list $2 runs.
INSERT INTO import (site_id, list_id) VALUES ($1, $2)
RETURNING id, list_id, status, rows_read, created, merged, refused, detail, created_at, ended_at;

-- name: note_import
-- Adds to the counts of import $1: rows read, created, merged, refused.
UPDATE import SET rows_read = rows_read + $2, created = created + $3, merged = merged + $4, refused = refused + $5 WHERE id = $1;

-- name: end_import
-- Import $1 ended as $2, because of $3.
UPDATE import SET status = $2, detail = $3, ended_at = now() WHERE id = $1
RETURNING id, list_id, status, rows_read, created, merged, refused, detail, created_at, ended_at;

-- name: imports
-- Up to $3 imports of site $1 after $2.
SELECT id, list_id, status, rows_read, created, merged, refused, detail, created_at, ended_at
FROM import WHERE site_id = $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: import_
-- One import.
SELECT id, list_id, status, rows_read, created, merged, refused, detail, created_at, ended_at FROM import WHERE id = $1;

-- name: add_row_errors
-- Keeps errors of import $2 of site $1: lines $3, columns $4, reasons $5, values $6.
INSERT INTO import_error (site_id, import_id, line, column_name, reason, value)
SELECT $1, $2, e.line, e.column_name, e.reason, e.value
FROM unnest($3::integer[], $4::text[], $5::text[], $6::text[]) e(line, column_name, reason, value)
ON CONFLICT DO NOTHING;

-- name: row_errors
-- Up to $4 errors of import $1 after line $2 and column $3.
SELECT line, column_name, reason, value FROM import_error
WHERE import_id = $1 AND (line, column_name) > ($2, $3) ORDER BY line, column_name LIMIT $4;

-- name: variables
-- What a template may say of contact $1: what a broadcast's audience has (`broadcasts.sql`).
SELECT (c.fields || jsonb_build_object('email', c.email, 'first_name', c.first_name, 'last_name', c.last_name, 'phone', c.phone))::text
FROM contact c WHERE c.id = $1;

-- name: change_contact
-- Changes contact $1: address $2 and domain $3, names $4 and $5, phone $6, tags $7 (null: as they are), and custom fields $8, of which those
-- that are null go.
UPDATE contact SET email = coalesce($2, email), domain = coalesce($3, domain), first_name = coalesce($4, first_name),
       last_name = coalesce($5, last_name), phone = coalesce($6, phone), tags = coalesce($7::text[], tags),
       fields = (fields || $8::jsonb) - ARRAY(SELECT f.key FROM jsonb_each($8::jsonb) f WHERE f.value = 'null'::jsonb), updated_at = now()
WHERE id = $1
RETURNING id, email, first_name, last_name, phone, tags, fields, source, created_at, updated_at;

-- name: find_contacts
-- Of the next $3 contacts of site $1 after $2 up to $4 that fit: $5 (in lower case) in address, name or phone, with tag $6, on list $7.
-- Beside each: up to which id was looked, and at how many; a row without an id says nothing else.
WITH looked AS MATERIALIZED (
    SELECT c.id, c.email, c.first_name, c.last_name, c.phone, c.tags, c.fields, c.source, c.created_at, c.updated_at
    -- Compared as pairs: with site_id = $1 the primary key would do too, and the contacts of all other sites be walked.
    FROM contact c WHERE (c.site_id, c.id) > ($1, $2) AND (c.site_id, c.id) < ($1 + 1, 0) ORDER BY c.site_id, c.id LIMIT $3
), reached AS (
    SELECT max(l.id) AS until, count(*) AS looked FROM looked l
), fitting AS (
    SELECT l.* FROM looked l
    WHERE ($5::text IS NULL OR position($5 IN lower(concat_ws(' ', l.email, l.first_name, l.last_name, l.phone))) > 0)
      AND ($6::text IS NULL OR $6 = ANY (l.tags))
      AND ($7::integer IS NULL OR EXISTS (SELECT FROM list_member m WHERE m.list_id = $7 AND m.contact_id = l.id))
    ORDER BY l.id LIMIT $4
)
SELECT r.until, r.looked, f.* FROM reached r LEFT JOIN fitting f ON true ORDER BY f.id;
