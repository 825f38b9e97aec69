-- What is sent: templates, messages (content and sender) and broadcasts.
create table template (
    id          integer generated always as identity primary key,
    site_id     integer not null references site on delete cascade,
    name        text not null check (name <> ''),
    version     integer not null default 1,
    subject     text not null,
    html        text not null default '',
    text        text not null default '',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    unique (site_id, name)
);

create type stream as enum ('transactional', 'marketing');

-- One number line for messages and acceptances: a delivery's id is its acceptance's id * 1024 + its place in it,
-- so that ids are sortable, a batch of up to 1,024 takes one number, and no two submitters wait for each other.
create sequence acceptance_id;

-- A message: content and sender, pinned when it was accepted. Large bodies stay uncompressed: pglz cost 2.3 ms for 100 kB.
create table message (
    id          bigint primary key,
    site_id     integer not null,
    domain_id   integer not null,
    stream      stream not null,
    sender      text not null,
    reply_to    text not null default '',
    subject     text not null,
    html        text not null default '',
    text        text not null default '',
    headers     jsonb not null default '{}',
    template    text not null default '',
    created_at  timestamptz not null default now()
);
alter table message alter html set storage external, alter text set storage external;
create index message_site on message (site_id, id);

create type broadcast_state as enum ('draft', 'scheduled', 'preparing', 'sending', 'paused', 'completed', 'cancelled', 'failed');

create table broadcast (
    id             bigint generated always as identity primary key,
    site_id        integer not null references site on delete cascade,
    name           text not null,
    list_id        integer not null references list on delete restrict,
    template_id    integer not null references template on delete restrict,
    domain_id      integer not null references domain on delete restrict,
    sender         text not null,
    reply_to       text not null default '',
    state          broadcast_state not null default 'draft',
    paused_by      text not null default '',
    message_id     bigint,
    expires_in_s   integer not null default 259200 check (expires_in_s > 0),
    audience_until bigint,                         -- list_member.seq at launch: the frozen audience
    cursor         bigint not null default 0,      -- list_member.seq up to which deliveries were made
    expanded       boolean not null default false,
    created_at     timestamptz not null default now(),
    started_at     timestamptz,
    ended_at       timestamptz
);
create index broadcast_site on broadcast (site_id, id);
create index broadcast_working on broadcast (id) where state in ('preparing', 'sending', 'paused', 'cancelled') and ended_at is null;
