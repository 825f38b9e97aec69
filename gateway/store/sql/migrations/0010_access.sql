-- Who may do what. gateway_maintain owns every table and function; gateway_api sees one site at a time, by row-level
-- security (current_site() of its transaction, or '*' for an operator's key); gateway_dispatch sees all sites.
do $$
declare r record;
begin
    for r in select c.oid::regclass as name, c.relkind from pg_class c join pg_namespace n on n.oid = c.relnamespace
              where n.nspname = 'public' and c.relkind in ('r', 'p') and c.relname <> 'gateway_migration' loop
        execute format('alter table %s owner to gateway_maintain', r.name);
        execute format('grant select, insert, update, delete on %s to gateway_dispatch', r.name);
    end loop;
    for r in select c.oid::regclass as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
              where n.nspname = 'public' and c.relkind = 'S' loop
        if not exists (select from pg_depend d where d.objid = r.name and d.deptype = 'i') then
            execute format('alter sequence %s owner to gateway_maintain', r.name);
        end if;
        execute format('grant usage, select, update on sequence %s to gateway_api, gateway_dispatch', r.name);
    end loop;
    for r in select p.oid::regprocedure as name from pg_proc p join pg_namespace n on n.oid = p.pronamespace
              where n.nspname = 'public' loop
        execute format('alter function %s owner to gateway_maintain', r.name);
    end loop;
end $$;
grant create on schema public to gateway_maintain;

-- What an app's own rows are: seen and written by site.
do $$
declare t text;
begin
    foreach t in array array['domain', 'idempotency', 'contact', 'list', 'list_member', 'import', 'import_error', 'suppression', 'template',
                             'message', 'broadcast', 'queue', 'acceptance', 'ended', 'event', 'tally', 'api_key'] loop
        execute format('alter table %I enable row level security', t);
        execute format('create policy by_site on %I to gateway_api using (site_id = current_site() or is_operator()) '
                       'with check (site_id = current_site() or is_operator())', t);
        execute format('create policy every_site on %I to gateway_dispatch using (true) with check (true)', t);
        execute format('grant select, insert, update, delete on %I to gateway_api', t);
    end loop;
end $$;
alter table site enable row level security;
create policy by_site on site to gateway_api using (id = current_site() or is_operator()) with check (is_operator());
create policy every_site on site to gateway_dispatch using (true) with check (true);
grant select, insert, update, delete on site to gateway_api;
-- A key must be found before its site is known: by its prefix, through this function alone.
create function find_key(p_prefix text) returns table (id integer, site_id integer, hash bytea, scopes text[], site_status text, campaigns boolean)
language sql stable security definer set search_path = public as $$
    select k.id, k.site_id, k.hash, k.scopes, s.status, s.campaigns from api_key k left join site s on s.id = k.site_id
     where k.prefix = p_prefix and k.revoked_at is null
$$;
create function touch_keys(p_ids integer[]) returns void language sql security definer set search_path = public as $$
    update api_key set last_used_at = now() where id = any (p_ids)
$$;
alter function find_key(text) owner to gateway_maintain;
alter function touch_keys(integer[]) owner to gateway_maintain;

-- Books are never rewritten by an app: what is accepted and ended can be added to and read, counts and the queue read.
revoke update, delete on acceptance, ended, event, queue from gateway_api;
revoke insert, update, delete on tally from gateway_api;
grant select on lane, domain_lane, lane_state, incarnation to gateway_api;
-- Holds: an app pauses its own broadcasts; which broadcast is whose is checked by the statement that writes.
grant select, insert, update, delete on hold to gateway_api;
