-- Contacts, lists and imports.
create table contact (
    id          bigint generated always as identity primary key,
    site_id     integer not null references site on delete cascade,
    email       text not null,
    email_key   text generated always as (lower(email)) stored,
    domain      text not null,
    first_name  text not null default '',
    last_name   text not null default '',
    phone       text not null default '',
    tags        text[] not null default '{}',
    fields      jsonb not null default '{}',
    source      text not null default 'import',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    unique (site_id, email_key)
);

create table list (
    id          integer generated always as identity primary key,
    site_id     integer not null references site on delete cascade,
    name        text not null check (name <> ''),
    created_at  timestamptz not null default now(),
    unique (site_id, name)
);

-- Membership carries its own number, so that an audience can be frozen at a point and walked by a cursor.
create table list_member (
    list_id     integer not null references list on delete cascade,
    contact_id  bigint not null references contact on delete cascade,
    site_id     integer not null,
    seq         bigint generated always as identity,
    added_at    timestamptz not null default now(),
    primary key (list_id, contact_id)
);
create unique index list_member_walk on list_member (list_id, seq);
create index list_member_contact on list_member (contact_id);

create table import (
    id          integer generated always as identity primary key,
    site_id     integer not null references site on delete cascade,
    list_id     integer references list on delete set null,
    status      text not null default 'running' check (status in ('running', 'completed', 'failed')),
    rows_read   integer not null default 0,
    created     integer not null default 0,
    merged      integer not null default 0,
    refused     integer not null default 0,
    detail      text not null default '',
    created_at  timestamptz not null default now(),
    ended_at    timestamptz
);
create index import_site on import (site_id, id);

create table import_error (
    import_id   integer not null references import on delete cascade,
    site_id     integer not null,
    line        integer not null,
    column_name text not null default '',
    reason      text not null,
    value       text not null default '',
    primary key (import_id, line, column_name)
);

-- Who must not be written to. scope: 'all' blocks both streams (a dead address), 'marketing' only marketing.
create table suppression (
    site_id     integer not null,
    email_key   text not null,
    scope       text not null check (scope in ('all', 'marketing')),
    reason      text not null,
    evidence    text not null default '',
    delivery_id bigint,
    created_at  timestamptz not null default now(),
    primary key (site_id, email_key, scope)
);
