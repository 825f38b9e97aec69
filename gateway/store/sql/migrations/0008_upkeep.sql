-- What keeps the queue moving when nobody sends: promotion, expiry, cancelling, the sweep for sleepers, reaping.

-- Who waits in a flow: a cancelled broadcast's deferred ones are found by it, and no flow is reaped under them.
create index queue_waiting_flow on queue (flow_id) where state in ('deferred', 'in_doubt');

-- Wake what is due. A retry goes to the head of its flow. What has expired ends, in every waiting state.
-- Gives (promoted, expired, unresolved).
create function promote(p_limit integer, p_shard integer, out promoted integer, out expired integer, out unresolved integer)
language plpgsql set enable_seqscan = off as $$
declare
    v_now constant timestamptz := clock_timestamp();   -- the function itself is no bound of an index: all that waits was read
    v_ready bigint[]; v_expired bigint[]; v_unresolved bigint[]; v_flows bigint[]; v_seqs bigint[];
begin
    select array_agg(d.id) filter (where d.end_as is null), array_agg(d.id) filter (where d.end_as = 'expired'),
           array_agg(d.id) filter (where d.end_as = 'unresolved')
      into v_ready, v_expired, v_unresolved
      from (select q.id, case when q.expires_at > v_now and not (q.state = 'in_doubt' and exists (
                                    select from hold h where h.kind = 'broadcast' and h.ref = q.broadcast_id and h.why = 'cancelled')) then null
                              when q.state = 'in_doubt' then 'unresolved' else 'expired' end as end_as
              from queue q where q.state in ('deferred', 'in_doubt') and q.due_at <= v_now
             order by q.due_at limit p_limit for update of q skip locked) d;
    expired := case when v_expired is null then 0 else end_deliveries(v_expired, 'expired', p_shard, '{deferred}', 'expired while it waited for its next try') end;
    unresolved := case when v_unresolved is null then 0 else end_deliveries(v_unresolved, 'unresolved', p_shard, '{in_doubt}', 'in doubt until it expired') end;
    promoted := 0;
    if v_ready is not null then
        with moved as (
            update queue q set state = 'queued', seq = coalesce((select f.floor from flow f where f.id = q.flow_id), q.seq)
             where q.id = any (v_ready) and q.state in ('deferred', 'in_doubt') returning q.flow_id, q.seq)
        select array_agg(f), array_agg(s), sum(k) into v_flows, v_seqs, promoted
          from (select flow_id f, min(seq) s, count(*) k from moved group by flow_id) x;
        if v_flows is not null then perform wake(v_flows, v_seqs); end if;
    end if;
end $$;

-- End what expired while it was ready or held (leased rows are the dispatcher's to end).
create function expire_ready(p_limit integer, p_shard integer) returns integer language plpgsql set enable_seqscan = off as $$
declare v_now constant timestamptz := clock_timestamp(); v_ids bigint[];
begin
    select array_agg(x.id) into v_ids from (
        select q.id from queue q where q.state in ('queued', 'held') and q.expires_at <= v_now
         order by q.expires_at limit p_limit for update skip locked) x;
    return case when v_ids is null then 0 else end_deliveries(v_ids, 'expired', p_shard, '{queued,held}', 'expired before it could be sent') end;
end $$;

-- End up to p_limit waiting deliveries of a cancelled broadcast. What is in doubt stays so until its time is up.
create function cancel_broadcast_rows(p_broadcast bigint, p_limit integer, p_shard integer) returns integer language plpgsql
set enable_seqscan = off as $$
declare v_ids bigint[]; v_count integer := 0;
begin
    select array_agg(x.id) into v_ids from (
        select q.id from flow f cross join lateral (
            select q.id from queue q where q.flow_id = f.id and q.state = 'queued' order by q.seq limit p_limit for update skip locked) q
         where f.broadcast_id = p_broadcast limit p_limit) x;
    if v_ids is not null then
        v_count := end_deliveries(v_ids, 'cancelled', p_shard, '{queued}', 'its broadcast was cancelled');
    end if;
    select array_agg(x.id) into v_ids from (
        select q.id from flow f cross join lateral (
            select q.id from queue q where q.flow_id = f.id and q.state in ('deferred', 'in_doubt') and q.state = 'deferred'
             limit p_limit for update skip locked) q
         where f.broadcast_id = p_broadcast limit p_limit) x;
    if v_ids is not null then
        v_count := v_count + end_deliveries(v_ids, 'cancelled', p_shard, '{deferred}', 'its broadcast was cancelled');
    end if;
    return v_count;
end $$;

-- Resume what a hold had parked: flows with rows become active again, their lanes wake.
create function wake_held(p_broadcast bigint, p_site integer) returns integer language plpgsql set enable_seqscan = off as $$
declare v_flows bigint[]; v_seqs bigint[];
begin
    select array_agg(x.id), array_agg(x.seq) into v_flows, v_seqs from (
        select f.id, (select q.seq from queue q where q.flow_id = f.id and q.state = 'queued' order by q.seq limit 1) as seq
          from flow f where (p_broadcast <> 0 and f.broadcast_id = p_broadcast) or (p_broadcast = 0 and f.site_id = p_site)) x
     where x.seq is not null;
    if v_flows is null then return 0; end if;
    perform wake(v_flows, v_seqs);
    return cardinality(v_flows);
end $$;

-- Find flows with ready rows that nobody will look at: a process died between insert and wake, a floor stands too
-- high, a flow was reaped under a process that still remembered it. A loose index scan: one probe a flow.
create function sweep() returns integer language plpgsql set enable_seqscan = off set enable_bitmapscan = off as $$
declare v_flows bigint[]; v_seqs bigint[]; v_orphans bigint[]; v_domains text[];
begin
    with recursive t as (
        (select q.flow_id from queue q where q.state = 'queued' order by q.flow_id limit 1)
        union all
        select (select q.flow_id from queue q where q.state = 'queued' and q.flow_id > t.flow_id order by q.flow_id limit 1)
          from t where t.flow_id is not null
    ), found as materialized (
        select t.flow_id, (select q.seq from queue q where q.state = 'queued' and q.flow_id = t.flow_id order by q.seq, q.id limit 1) as seq
          from t where t.flow_id is not null
    )
    select array_agg(d.flow_id) filter (where l.lane_id is not null), array_agg(d.seq) filter (where l.lane_id is not null),
           array_agg(d.flow_id) filter (where l.lane_id is null)
      into v_flows, v_seqs, v_orphans
      from found d left join flow f on f.id = d.flow_id left join lane_state l on l.lane_id = f.lane_id
     where d.seq is not null and (l.lane_id is null
        or ((not f.active or f.floor > d.seq or l.next_due = 'infinity' or (f.priority = 0 and not l.urgent))
            and not exists (select from hold h where (h.until_at is null or h.until_at > clock_timestamp())
                               and ((h.kind = 'broadcast' and h.ref = f.broadcast_id) or (h.kind = 'site' and h.ref = f.site_id)))));
    if v_orphans is not null then
        -- Their lane may be gone too: each then takes its domain's, made with modest limits until the config's are applied.
        select array_agg(distinct x.domain) into v_domains from (
            select lower(split_part(q.recipient, '@', -1)) as domain from queue q
             where q.flow_id = any (v_orphans) and q.state = 'queued' and not exists (select from lane_state l where l.lane_id = q.lane_id)
             limit 50000) x;
        if v_domains is not null then
            update queue q set lane_id = e.lane_id
              from ensure_lanes(v_domains, array_fill(10.0::float8, array[cardinality(v_domains)]),
                                array_fill(10.0::float8, array[cardinality(v_domains)]), array_fill(2, array[cardinality(v_domains)])) e
             where q.flow_id = any (v_orphans) and q.state = 'queued' and lower(split_part(q.recipient, '@', -1)) = e.domain
               and not exists (select from lane_state l where l.lane_id = q.lane_id);
        end if;
        insert into flow (lane_id, priority, site_id, broadcast_id)
        select distinct x.lane_id, x.priority, x.site_id, x.broadcast_id from (
            select q.* from queue q where q.flow_id = any (v_orphans) and q.state = 'queued' limit 50000) x
        on conflict do nothing;
        with moved as (
            update queue q set flow_id = f.id from flow f
             where q.id in (select q2.id from queue q2 where q2.flow_id = any (v_orphans) and q2.state = 'queued' limit 50000)
               and f.lane_id = q.lane_id and f.priority = q.priority and f.site_id = q.site_id and f.broadcast_id = q.broadcast_id
            returning q.flow_id, q.seq)
        select v_flows || array_agg(x.flow_id), v_seqs || array_agg(x.seq) into v_flows, v_seqs
          from (select m.flow_id, min(m.seq) as seq from moved m group by m.flow_id) x;
    end if;
    if v_flows is not null then perform wake(v_flows, v_seqs); end if;
    return coalesce(cardinality(v_flows), 0);
end $$;

-- Remove flows and lanes that have been idle for long. A process that still remembers one is mended by sweep().
create function reap(p_flow_idle interval, p_lane_idle interval, p_limit integer) returns integer language plpgsql
set enable_seqscan = off as $$
declare v_flows integer; v_lanes integer;
begin
    with old as (
        select f.id from flow f where not f.active and f.used_at < now() - p_flow_idle
           and not exists (select from queue q where q.flow_id = f.id and q.state = 'queued')
           and not exists (select from queue q where q.flow_id = f.id and q.state in ('deferred', 'in_doubt'))
         limit p_limit for update skip locked), gone as (delete from flow f using old where f.id = old.id returning 1)
    select count(*) into v_flows from gone;
    with old as (
        select l.lane_id from lane_state l where l.next_due = 'infinity' and l.used_at < now() - p_lane_idle
           and not exists (select from flow f where f.lane_id = l.lane_id) limit p_limit for update skip locked),
    gone as (delete from lane_state l using old where l.lane_id = old.lane_id returning l.lane_id),
    names as (delete from lane l using gone where l.id = gone.lane_id)
    select count(*) into v_lanes from gone;
    delete from hold h where h.kind = 'broadcast' and h.why = 'cancelled' and not exists (
        select from broadcast b where b.id = h.ref and b.ended_at is null);
    delete from idempotency where created_at < now() - interval '48 hours';
    return v_flows + v_lanes;
end $$;
