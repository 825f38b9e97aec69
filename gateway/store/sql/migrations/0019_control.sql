-- What the control API steers: broadcasts that start by themselves, an operator's hand on lanes and sites, and how much of a site waits.

-- When a scheduled broadcast is to be launched, and why one could not be.
alter table broadcast add column scheduled_at timestamptz, add column detail text not null default '';
create index broadcast_scheduled on broadcast (scheduled_at) where state = 'scheduled';

-- What waits of one site is found by its flows. They are updated by each claim, but never in this column: the updates stay within the page.
create index flow_site on flow (site_id);

-- A page of a broadcast's deliveries begins at an acceptance, and is not sorted out of all of them.
drop index acceptance_broadcast;
create index acceptance_broadcast on acceptance (broadcast_id, id) where broadcast_id <> 0;

-- What is held by hand is rare; else it is looked for among all that is ready.
create index queue_held on queue (broadcast_id) where state = 'held';

-- Limits that an operator gives a lane for a time, in place of those of the throttles; null: as the throttles say. Who keeps the lanes to
-- the throttles removes what is over, once the lane has the throttles' limits again.
create table lane_override (
    lane_id         integer primary key references lane on delete cascade,
    rate_per_s      double precision check (rate_per_s > 0),
    burst           double precision check (burst >= 1),
    max_connections integer check (max_connections > 0),
    until_at        timestamptz not null,
    why             text not null default '',
    created_at      timestamptz not null default now(),
    check (num_nonnulls(rate_per_s, burst, max_connections) > 0)
);
alter table lane_override owner to gateway_maintain;
grant select on lane_override to gateway_api;
grant select, insert, update, delete on lane_override to gateway_dispatch;

-- The functions below do what gateway_api may not do itself; for an operator's transaction alone.
create function need_operator() returns void language plpgsql as $$
begin
    if current_setting('role') = 'gateway_api' and not is_operator() then
        raise insufficient_privilege using message = 'this is for operators';
    end if;
end $$;

-- Give a lane limits for some seconds; what it owes is rescaled to the new rate. False: there is no such lane.
create function limit_lane(
    p_lane integer, p_rate double precision, p_burst double precision, p_connections integer, p_seconds double precision, p_why text)
returns boolean language plpgsql security definer set search_path = public set enable_seqscan = off as $$
declare v_now constant timestamptz := clock_timestamp();
begin
    perform need_operator();
    if not exists (select from lane_state s where s.lane_id = p_lane) then return false; end if;
    insert into lane_override (lane_id, rate_per_s, burst, max_connections, until_at, why, created_at)
    values (p_lane, p_rate, p_burst, p_connections, v_now + make_interval(secs => p_seconds), p_why, v_now)
    on conflict (lane_id) do update set rate_per_s = excluded.rate_per_s, burst = excluded.burst, max_connections = excluded.max_connections,
        until_at = excluded.until_at, why = excluded.why, created_at = excluded.created_at;
    update lane_state s set rate_per_s = coalesce(p_rate, s.rate_per_s), burst = coalesce(p_burst, s.burst),
           max_connections = coalesce(p_connections, s.max_connections),
           tat = case when s.tat > v_now then v_now + (s.tat - v_now) * (s.rate_per_s / coalesce(p_rate, s.rate_per_s)) else s.tat end,
           token_at = '-infinity'
     where s.lane_id = p_lane;
    return true;
end $$;

-- End such limits: within seconds the lane has those of the throttles. False: it has none.
create function unlimit_lane(p_lane integer) returns boolean language plpgsql security definer set search_path = public as $$
begin
    perform need_operator();
    update lane_override o set until_at = clock_timestamp() where o.lane_id = p_lane and o.until_at > clock_timestamp();
    return found;
end $$;

-- Let a lane wait for some seconds, or (null) until it is resumed. False: there is no such lane.
create function suspend_lane(p_lane integer, p_seconds double precision, p_why text) returns boolean
language plpgsql security definer set search_path = public set enable_seqscan = off as $$
begin
    perform need_operator();
    update lane_state s set suspended_until = coalesce(clock_timestamp() + make_interval(secs => p_seconds), 'infinity'), suspended_why = p_why
     where s.lane_id = p_lane;
    return found;
end $$;

-- Let a suspended lane go on at once, whoever suspended it. False: it is not suspended.
create function resume_lane(p_lane integer) returns boolean
language plpgsql security definer set search_path = public set enable_seqscan = off as $$
begin
    perform need_operator();
    -- A claim looks from a floor on that is up to a second old: the lane must not become ready below it.
    update lane_state s set suspended_until = '-infinity', suspended_why = '', token_at = greatest(s.token_at, clock_timestamp())
     where s.lane_id = p_lane and s.suspended_until > clock_timestamp();
    return found;
end $$;

-- The whole lane waits: a 421, connection trouble. What waits until it is resumed keeps its operator's word whatever is refused meanwhile.
create or replace function suspend_lanes(p_lanes integer[], p_seconds double precision[], p_why text[]) returns void language sql
set enable_seqscan = off
as $$
    update lane_state l set suspended_until = greatest(l.suspended_until, clock_timestamp() + make_interval(secs => s.seconds)),
           suspended_why = case l.suspended_until when 'infinity' then l.suspended_why else s.why end
      from (select u.* from unnest(p_lanes, p_seconds, p_why) u(lane, seconds, why)
             order by u.lane) s
     where l.lane_id = any (p_lanes) and l.lane_id = s.lane
$$;

-- How many deliveries are ready in each of some lanes, how many wait for another try, and how many dispatchers have in hand; no more than
-- p_most of either of the first two are counted.
create function lane_backlogs(p_lanes integer[], p_most integer)
returns table (lane_id integer, ready integer, waiting integer, leased integer)
language plpgsql stable security definer set search_path = public set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_column
begin
    perform need_operator();
    return query
    with in_hand as materialized (
        select q.lane_id, count(*)::integer as n from queue q
         where q.state = 'leased' and q.owner_id is not null and q.lane_id = any (p_lanes) group by q.lane_id)
    select l.id,
           (select count(*) from (select from flow f cross join lateral (
                select from queue q where q.flow_id = f.id and q.state = 'queued' and q.seq >= f.floor order by q.seq limit p_most) x
             where f.lane_id = l.id limit p_most) y)::integer,
           (select count(*) from (select from flow f cross join lateral (
                select from queue q where q.flow_id = f.id and q.state in ('deferred', 'in_doubt') limit p_most) x
             where f.lane_id = l.id limit p_most) y)::integer,
           coalesce((select i.n from in_hand i where i.lane_id = l.id), 0)
      from unnest(p_lanes) l(id);
end $$;

-- How many deliveries of a site and priority wait, for their turn or for another try; no more than p_most are counted. An app may ask for its
-- own site.
create function site_backlog(p_site integer, p_priority smallint, p_most integer) returns integer
language sql stable security definer set search_path = public set enable_seqscan = off set enable_bitmapscan = off as $$
    select count(*)::integer from (
        select from flow f cross join lateral (
            (select 1 from queue q where q.flow_id = f.id and q.state = 'queued' and q.seq >= f.floor order by q.seq limit p_most)
            union all
            (select 1 from queue q where q.flow_id = f.id and q.state in ('deferred', 'in_doubt') limit p_most)) x
         where f.site_id = p_site and f.priority = p_priority and (current_setting('role') <> 'gateway_api' or p_site = current_site() or is_operator())
         limit p_most) y
$$;

-- What of a broadcast is neither ready nor ended, by state. Not under row-level security, which keeps the planner from partial indexes
-- (200 ms at 500,000 rows, and a stream asks each second); an app may ask for its own.
create function broadcast_waiting(p_broadcast bigint) returns table (state delivery_state, n bigint)
language plpgsql stable security definer set search_path = public set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_column
begin
    if not exists (select from broadcast b where b.id = p_broadcast
                      and (current_setting('role') <> 'gateway_api' or b.site_id = current_site() or is_operator())) then return; end if;
    return query
    select w.state, count(*) from flow f cross join lateral (
        select q.state from queue q where q.flow_id = f.id and q.state in ('deferred', 'in_doubt') and q.broadcast_id = p_broadcast offset 0) w
     where f.broadcast_id = p_broadcast and f.broadcast_id <> 0 group by w.state
    union all
    select 'leased', count(*) from queue q where q.state = 'leased' and q.owner_id is not null and q.broadcast_id = p_broadcast
    union all
    select 'held', count(*) from queue q where q.state = 'held' and q.broadcast_id = p_broadcast;
end $$;

-- Wake what the hold of a site had parked, after the commit that took it away.
create function wake_site(p_site integer) returns integer language plpgsql security definer set search_path = public as $$
begin
    perform need_operator();
    return wake_held(0, p_site);
end $$;

alter function need_operator() owner to gateway_maintain;
alter function limit_lane(integer, double precision, double precision, integer, double precision, text) owner to gateway_maintain;
alter function unlimit_lane(integer) owner to gateway_maintain;
alter function suspend_lane(integer, double precision, text) owner to gateway_maintain;
alter function resume_lane(integer) owner to gateway_maintain;
alter function lane_backlogs(integer[], integer) owner to gateway_maintain;
alter function site_backlog(integer, smallint, integer) owner to gateway_maintain;
alter function broadcast_waiting(bigint) owner to gateway_maintain;
alter function wake_site(integer) owner to gateway_maintain;
