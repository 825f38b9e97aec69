-- Sites (the tenants), their keys and sending domains.
create table site (
    id          integer generated always as identity primary key,
    name        text not null check (name <> ''),
    time_zone   text not null default 'UTC',
    status      text not null default 'active' check (status in ('active', 'suspended')),
    campaigns   boolean not null default true,
    created_at  timestamptz not null default now()
);

-- A key is shown once; what is kept is its SHA-256. A key without a site is an operator's.
create table api_key (
    id           integer generated always as identity primary key,
    site_id      integer references site on delete cascade,
    name         text not null default '',
    prefix       text not null unique,
    hash         bytea not null check (length(hash) = 32),
    scopes       text[] not null,
    created_at   timestamptz not null default now(),
    last_used_at timestamptz,
    revoked_at   timestamptz
);
create index api_key_site on api_key (site_id);

-- A sending domain. The private key is sealed with the envelope key (AES-GCM), never stored in the clear.
create table domain (
    id                 integer generated always as identity primary key,
    site_id            integer not null references site on delete cascade,
    name               text not null unique check (name = lower(name)),
    status             text not null default 'pending' check (status in ('pending', 'verified', 'failed')),
    selector           text not null,
    private_key_sealed bytea not null,
    public_key         text not null,
    created_at         timestamptz not null default now(),
    verified_at        timestamptz
);
create index domain_site on domain (site_id);

-- The stored answer to a POST that carried an Idempotency-Key.
create table idempotency (
    site_id     integer not null,
    key         text not null,
    body_hash   bytea not null,
    status      smallint,
    answer      bytea,
    created_at  timestamptz not null default now(),
    primary key (site_id, key)
);
create index idempotency_created on idempotency (created_at);
