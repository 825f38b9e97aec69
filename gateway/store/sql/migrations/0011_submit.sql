-- The control API's own calls: submitting messages in one round trip, and waking what a pause had parked.

-- Deliveries that were suppressed when the stored answer was made: the answer is kept as it was written before.
alter table idempotency add column suppressed bigint[];

-- Contacts are listed by site in the order of their ids.
create index contact_site on contact (site_id, id);

-- Store messages of one site with their deliveries, and the answer under its Idempotency-Key; all of it or nothing.
--   p_key          null: no Idempotency-Key. A caller that comes second waits here for the first one's commit.
--   p_answer       what is stored under the key, written as if nobody were suppressed
--   p_messages …   one element a message;  p_ids … one element a delivery, the p_urgent of priority 0 first
-- Gives the stored answer where there was one (replayed), and the ids of the suppressed.
create function submit(
    p_site integer, p_key text, p_hash bytea, p_status smallint, p_answer bytea, p_accepted timestamptz,
    p_messages bigint[], p_domains integer[], p_streams stream[], p_senders text[], p_reply_tos text[], p_subjects text[],
    p_htmls text[], p_texts text[], p_headers text[], p_templates text[],
    p_urgent integer, p_ids bigint[], p_of bigint[], p_recipients text[], p_variables text[], p_lanes integer[], p_flows bigint[],
    p_due timestamptz[], p_expires timestamptz[],
    out replayed boolean, out body_hash bytea, out status smallint, out answer bytea, out suppressed bigint[])
language plpgsql as $$
declare v_places integer[]; v_first integer; v_last integer; v_all constant integer := cardinality(p_ids);
begin
    perform set_config('gateway.site_id', p_site::text, true);
    replayed := false;
    while p_key is not null loop
        insert into idempotency (site_id, key, body_hash, status, answer) values (p_site, p_key, p_hash, p_status, p_answer)
        on conflict do nothing;
        exit when found;
        select true, i.body_hash, i.status, i.answer, i.suppressed into replayed, body_hash, status, answer, suppressed
          from idempotency i where i.site_id = p_site and i.key = p_key;
        if found then return; end if;   -- else it was too old and has just been removed: the key is free
        replayed := false;
    end loop;

    insert into message (id, site_id, domain_id, stream, sender, reply_to, subject, html, text, headers, template, created_at)
    select m.id, p_site, m.domain, m.stream, m.sender, m.reply_to, m.subject, m.html, m.text, m.headers::jsonb, m.template, p_accepted
      from unnest(p_messages, p_domains, p_streams, p_senders, p_reply_tos, p_subjects, p_htmls, p_texts, p_headers, p_templates)
        as m(id, domain, stream, sender, reply_to, subject, html, text, headers, template);

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
    if p_key is not null and suppressed <> '{}' then
        update idempotency i set suppressed = submit.suppressed where i.site_id = p_site and i.key = p_key;
    end if;
end $$;
alter function submit(integer, text, bytea, smallint, bytea, timestamptz, bigint[], integer[], stream[], text[], text[], text[], text[], text[],
                      text[], text[], integer, bigint[], bigint[], text[], text[], integer[], bigint[], timestamptz[], timestamptz[])
    owner to gateway_maintain;

-- Wake what a pause had parked, after the commit that took the hold away; only for one of the site's own broadcasts.
create function wake_broadcast(p_broadcast bigint) returns integer language plpgsql security definer set search_path = public as $$
begin
    if not exists (select from broadcast b where b.id = p_broadcast and (b.site_id = current_site() or is_operator())) then
        return 0;
    end if;
    return wake_held(p_broadcast, 0);
end $$;
alter function wake_broadcast(bigint) owner to gateway_maintain;
