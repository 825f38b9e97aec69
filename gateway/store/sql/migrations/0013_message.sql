-- What the making of a message needs: more than one key for a sending domain (a spare one whose record is published long before it signs,
-- and a second algorithm), and its broadcast.

alter table domain add column algorithm text not null default 'rsa-sha256' check (algorithm in ('rsa-sha256', 'ed25519-sha256'));

-- What domain.selector … holds is the key that always signs; those here sign beside it, or wait.
create table domain_key (
    id                 integer generated always as identity primary key,
    domain_id          integer not null references domain on delete cascade,
    site_id            integer not null,
    selector           text not null,
    algorithm          text not null check (algorithm in ('rsa-sha256', 'ed25519-sha256')),
    private_key_sealed bytea not null,
    public_key         text not null,
    signs              boolean not null default false,
    created_at         timestamptz not null default now(),
    unique (domain_id, selector)
);
alter table domain_key owner to gateway_maintain;
alter table domain_key enable row level security;
create policy by_site on domain_key to gateway_api using (site_id = current_site() or is_operator())
    with check (site_id = current_site() or is_operator());
create policy every_site on domain_key to gateway_dispatch using (true) with check (true);
grant select, insert, update, delete on domain_key to gateway_api, gateway_dispatch;
grant usage, select, update on sequence domain_key_id_seq to gateway_api, gateway_dispatch;

-- Which broadcast a message belongs to: its Feedback-ID says so.
create index broadcast_message on broadcast (message_id) where message_id is not null;
