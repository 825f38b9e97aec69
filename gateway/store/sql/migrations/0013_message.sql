-- What the making of a message needs: more than one key for a sending domain (a spare one whose record is published long before it signs,
-- and a second algorithm), its broadcast, and files that come along.

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

-- Files, as the gateway's codec packs them (mta/mime.py); compressed by nobody: most are already.
alter table message add column attachments bytea;
alter table message alter attachments set storage external;

drop function submit(integer, text[], bytea[], smallint[], bytea[], timestamptz, bigint[], text[], integer[], stream[], text[], text[], text[], text[], text[], text[], text[], integer, bigint[], bigint[], text[], text[], integer[], bigint[], timestamptz[], timestamptz[], boolean);
-- Store messages of one site with their deliveries, and answers under their Idempotency-Keys; all of it or nothing. Several
-- requests may share the call, and with it the commit.
--   p_keys …       the requests' keys, ascending, each with the digest of its request, the status and the answer, written as if
--                  nobody were suppressed. Who comes second with a key waits here for the first one's commit.
--   p_messages …   one element a message;  p_key_of: the key of its request, or null
--   p_ids …        one element a delivery, the p_urgent of priority 0 first
-- Gives the stored answer where there was one (replayed), and the ids of the suppressed. A stored answer is only given for a
-- request that came alone: with others, `unique_violation` is raised, and they are to come one by one.
create function submit(
    p_site integer, p_keys text[], p_hashes bytea[], p_statuses smallint[], p_answers bytea[], p_accepted timestamptz,
    p_messages bigint[], p_key_of text[], p_domains integer[], p_streams stream[], p_senders text[], p_reply_tos text[],
    p_subjects text[], p_htmls text[], p_texts text[], p_headers text[], p_templates text[], p_attachments bytea[],
    p_urgent integer, p_ids bigint[], p_of bigint[], p_recipients text[], p_variables text[], p_lanes integer[], p_flows bigint[],
    p_due timestamptz[], p_expires timestamptz[], p_alone boolean,
    out replayed boolean, out body_hash bytea, out status smallint, out answer bytea, out suppressed bigint[])
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare v_places integer[]; v_first integer; v_last integer; v_new integer; v_all constant integer := cardinality(p_ids);
begin
    perform set_config('gateway.site_id', p_site::text, true);
    replayed := false;
    while p_keys <> '{}' loop
        insert into idempotency (site_id, key, body_hash, status, answer)
        select p_site, k.key, k.hash, k.status, k.answer from unnest(p_keys, p_hashes, p_statuses, p_answers) k(key, hash, status, answer)
        on conflict do nothing;
        get diagnostics v_new = row_count;
        exit when v_new = cardinality(p_keys);
        if not p_alone then
            raise unique_violation using message = 'one of these requests was answered before: they have to come one by one';
        end if;
        select true, i.body_hash, i.status, i.answer, i.suppressed into replayed, body_hash, status, answer, suppressed
          from idempotency i where i.site_id = p_site and i.key = p_keys[1];
        if found then return; end if;   -- else it was too old and has just been removed: the key is free
        replayed := false;
    end loop;

    insert into message (id, site_id, domain_id, stream, sender, reply_to, subject, html, text, headers, template, attachments, created_at)
    select m.id, p_site, m.domain, m.stream, m.sender, m.reply_to, m.subject, m.html, m.text, m.headers::jsonb, m.template, nullif(m.attachments, ''), p_accepted
      from unnest(p_messages, p_domains, p_streams, p_senders, p_reply_tos, p_subjects, p_htmls, p_texts, p_headers, p_templates, p_attachments)
        as m(id, domain, stream, sender, reply_to, subject, html, text, headers, template, attachments);

    suppressed := '{}';
    if p_urgent in (0, v_all) then
        v_places := accept_deliveries(p_site, 0, case when p_urgent > 0 then 0 else 1 end::smallint, p_accepted, p_ids, p_of, p_recipients,
                                      p_variables, p_lanes, p_flows, p_due, p_expires);
        if v_places <> '{}' then
            select array_agg(p_ids[place]) into suppressed from unnest(v_places) place;
        end if;
    else
        for v_priority in 0..1 loop
            v_first := case v_priority when 0 then 1 else p_urgent + 1 end;
            v_last := case v_priority when 0 then p_urgent else v_all end;
            v_places := accept_deliveries(
                p_site, 0, v_priority::smallint, p_accepted, p_ids[v_first:v_last], p_of[v_first:v_last], p_recipients[v_first:v_last],
                p_variables[v_first:v_last], p_lanes[v_first:v_last], p_flows[v_first:v_last], p_due[v_first:v_last], p_expires[v_first:v_last]);
            suppressed := suppressed || coalesce((select array_agg(p_ids[v_first - 1 + place]) from unnest(v_places) place), '{}');
        end loop;
    end if;
    if p_keys <> '{}' and suppressed <> '{}' then
        update idempotency i set suppressed = s.ids
          from (select m.key, array_agg(x.id) as ids from unnest(submit.suppressed) x(id) join unnest(p_messages, p_key_of) m(id, key) on m.id = x.id >> 10
                 where m.key is not null group by m.key) s
         where i.site_id = p_site and i.key = s.key;
    end if;
end $$;

do $$
declare r record;
begin
    for r in select p.oid::regprocedure as name from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname = 'submit' loop
        execute format('alter function %s owner to gateway_maintain', r.name);
    end loop;
end $$;
