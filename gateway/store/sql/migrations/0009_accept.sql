-- How deliveries come in.

-- Lanes of domains, made where missing. Gives (domain, lane_id) for all of them. Ordered, so that no two deadlock.
create function ensure_lanes(p_domains text[], p_rates double precision[], p_bursts double precision[], p_connections integer[])
returns table (domain text, lane_id integer) language plpgsql security definer
set search_path = public set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
begin
    insert into lane (name)
    select w.domain from unnest(p_domains) w(domain)
     where not exists (select from domain_lane d where d.domain = w.domain) order by w.domain on conflict do nothing;
    -- A second statement, by name, one look each: any join here took time squared once (100,000 domains).
    insert into lane_state (lane_id, rate_per_s, burst, max_connections)
    select distinct on (l.id) l.id, w.rate, w.burst, w.connections
      from unnest(p_domains, p_rates, p_bursts, p_connections) w(domain, rate, burst, connections)
     cross join lateral (select l.id from lane l where l.name = w.domain and l.source = '' limit 1) l
     where not exists (select from domain_lane d where d.domain = w.domain)
       and not exists (select from lane_state s where s.lane_id = l.id);
    insert into domain_lane (domain, lane_id)
    select w.domain, l.id from unnest(p_domains) w(domain)
     cross join lateral (select l.id from lane l where l.name = w.domain and l.source = '' limit 1) l
     where not exists (select from domain_lane d where d.domain = w.domain)
     order by w.domain on conflict do nothing;
    return query select d.domain, d.lane_id from domain_lane d where d.domain = any (p_domains);
end $$;

-- Flows of one site, priority and broadcast in some lanes. Gives (lane_id, flow_id).
create function ensure_flows(p_lanes integer[], p_priority smallint, p_site integer, p_broadcast bigint)
returns table (lane_id integer, flow_id bigint) language plpgsql security definer set search_path = public as $$
#variable_conflict use_column
begin
    insert into flow (lane_id, priority, site_id, broadcast_id)
    select l, p_priority, p_site, p_broadcast from unnest(p_lanes) l
     where not exists (select from flow f where f.lane_id = l and f.priority = p_priority and f.site_id = p_site and f.broadcast_id = p_broadcast)
     order by l on conflict do nothing;
    return query select f.lane_id, f.id from flow f
      where f.lane_id = any (p_lanes) and f.priority = p_priority and f.site_id = p_site and f.broadcast_id = p_broadcast;
end $$;

-- Count what was suppressed when it was accepted: an app may add to its own count here, and write no tally itself.
create function tally_suppressed(p_site integer, p_broadcast bigint, p_count integer) returns void
language plpgsql security definer set search_path = public as $$
begin
    if current_setting('role') = 'gateway_api' and p_site is distinct from current_site() and not is_operator() or p_count < 0 then
        raise insufficient_privilege using message = format('site %s is not this transaction''s, or the count is below 0', p_site);
    end if;
    insert into tally as t (broadcast_id, site_id, state, shard, n) values (p_broadcast, p_site, 'suppressed', pg_backend_pid() % 64, p_count)
    on conflict (broadcast_id, site_id, state, shard) do update set n = t.n + excluded.n;
end $$;

-- Accept deliveries of one site, in the transaction that also inserts their message or moves their broadcast's cursor.
-- Ids are given by the caller (acceptance_id * 1024 + place). What is suppressed ends at once, with its record: the
-- books count it as accepted and suppressed. Gives the places of the suppressed in the arrays, from 1.
create function accept_deliveries(
    p_site integer, p_broadcast bigint, p_priority smallint, p_accepted timestamptz, p_ids bigint[], p_messages bigint[],
    p_recipients text[], p_variables text[], p_lanes integer[], p_flows bigint[], p_due timestamptz[], p_expires timestamptz[])
returns integer[] language plpgsql
set enable_seqscan = off set jit = off
as $$
declare v_suppressed integer[];
begin
    insert into acceptance (id, site_id, message_id, broadcast_id, deliveries, accepted_at)
    select i >> 10, p_site, min(m), p_broadcast, count(*), p_accepted from unnest(p_ids, p_messages) d(i, m) group by i >> 10;

    select array_agg(d.place order by d.place) into v_suppressed
      from unnest(p_recipients) with ordinality d(recipient, place)
     where exists (select from suppression s where s.site_id = p_site and s.email_key = lower(d.recipient)
                      and (s.scope = 'all' or p_priority = 1));

    insert into queue (id, seq, flow_id, lane_id, site_id, message_id, broadcast_id, priority, state, due_at, accepted_at, expires_at,
                       recipient, variables)
    select d.id, d.id, d.flow, d.lane, p_site, d.message, p_broadcast, p_priority,
           case when d.due > p_accepted then 'deferred'::delivery_state else 'queued' end, d.due, p_accepted, d.expires, d.recipient, d.variables
      from unnest(p_ids, p_messages, p_recipients, p_variables, p_lanes, p_flows, p_due, p_expires) with ordinality
        as d(id, message, recipient, variables, lane, flow, due, expires, place)
     where v_suppressed is null or d.place <> all (v_suppressed);

    if v_suppressed is not null then
        insert into ended (id, site_id, message_id, broadcast_id, lane_id, priority, state, attempts, doubts, reply, accepted_at, ended_at, recipient)
        select d.id, p_site, d.message, p_broadcast, d.lane, p_priority, 'suppressed', 0, 0, 'on the suppression list when it was accepted',
               p_accepted, clock_timestamp(), d.recipient
          from unnest(p_ids, p_messages, p_recipients, p_lanes) with ordinality d(id, message, recipient, lane, place)
         where d.place = any (v_suppressed);
        perform tally_suppressed(p_site, p_broadcast, cardinality(v_suppressed));
    end if;
    return coalesce(v_suppressed, '{}');
end $$;
