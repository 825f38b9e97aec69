-- What the migrations add up to. Written by `make schema`; change a migration, never this file.

CREATE TYPE public.broadcast_state AS ENUM (
    'draft',
    'scheduled',
    'preparing',
    'sending',
    'paused',
    'completed',
    'cancelled',
    'failed'
);

CREATE TYPE public.delivery_state AS ENUM (
    'queued',
    'leased',
    'deferred',
    'held',
    'in_doubt',
    'delivered',
    'bounced',
    'expired',
    'suppressed',
    'cancelled',
    'quarantined',
    'unresolved'
);

CREATE TYPE public.stream AS ENUM (
    'transactional',
    'marketing'
);

CREATE FUNCTION public.accept_deliveries(p_site integer, p_broadcast bigint, p_priority smallint, p_accepted timestamp with time zone, p_ids bigint[], p_messages bigint[], p_recipients text[], p_variables text[], p_lanes integer[], p_flows bigint[], p_due timestamp with time zone[], p_expires timestamp with time zone[]) RETURNS integer[]
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION public.acknowledge(p_owner integer, p_ids bigint[], p_epochs integer[], p_outcomes public.delivery_state[], p_counts boolean[], p_waits double precision[], p_codes smallint[], p_enhanced text[], p_replies text[], p_classes text[], p_suppress text[]) RETURNS integer
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_nestloop TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
    v_ended integer := 0; v_kept integer := 0; v_late integer := 0;
    v_dead bigint[]; v_dead_sites integer[]; v_dead_keys text[];
begin
    with r as materialized (
        select * from unnest(p_ids, p_epochs, p_outcomes, p_counts, p_codes, p_enhanced, p_replies, p_classes)
            as r(id, epoch, outcome, counts, code, enhanced, reply, class) where r.outcome >= 'delivered'
    ), gone as (
        delete from queue q using r
         where q.id = any (p_ids) and q.id = r.id
           and (r.outcome = 'delivered' or (q.epoch = r.epoch and q.owner_id = p_owner))
        returning q.id, q.site_id, q.message_id, q.broadcast_id, q.lane_id, q.priority, q.attempts, q.doubts, q.accepted_at, q.recipient,
                  q.state as was, r.outcome, r.counts, r.code, r.enhanced, r.reply, r.class
    ), done as (
        insert into ended (id, site_id, message_id, broadcast_id, lane_id, priority, state, attempts, doubts, code, enhanced, reply,
                           bounce_class, accepted_at, ended_at, recipient)
        select id, site_id, message_id, broadcast_id, lane_id, priority, outcome, attempts + counts::integer, doubts, code, enhanced, reply,
               class, accepted_at, clock_timestamp(), recipient from gone
    ), tallied as (
        insert into tally as t (broadcast_id, site_id, state, shard, n)
        select broadcast_id, site_id, outcome, p_owner % 64, count(*) from gone group by 1, 2, 3 order by 1, 2, 3
        on conflict (broadcast_id, site_id, state, shard) do update set n = t.n + excluded.n
    )
    select count(*), array_agg(g.id) filter (where g.outcome = 'bounced'), array_agg(g.site_id) filter (where g.outcome = 'bounced'),
           array_agg(lower(g.recipient)) filter (where g.outcome = 'bounced')
      into v_ended, v_dead, v_dead_sites, v_dead_keys from gone g;

    if 'deferred' = any (p_outcomes) or 'in_doubt' = any (p_outcomes) then
        with r as materialized (
            select * from unnest(p_ids, p_epochs, p_outcomes, p_counts, p_waits, p_codes, p_enhanced, p_replies, p_classes)
                as r(id, epoch, outcome, counts, wait_s, code, enhanced, reply, class) where r.outcome in ('deferred', 'in_doubt')
        ), kept as (
            update queue q set state = r.outcome, owner_id = null, attempts = q.attempts + r.counts::integer, crashes = 0,
                   doubts = q.doubts + (r.outcome = 'in_doubt')::integer,
                   due_at = least(q.expires_at, case when r.outcome = 'in_doubt' and q.priority = 1 and q.doubts >= 1 then 'infinity'
                                                     else clock_timestamp() + make_interval(secs => r.wait_s) end),
                   last_class = r.class, last_reply = left(concat_ws(' ', r.code, r.enhanced, r.reply), 500)
              from r where q.id = any (p_ids) and q.id = r.id and q.epoch = r.epoch and q.owner_id = p_owner and q.state = 'leased'
            returning q.id, q.site_id, q.broadcast_id, q.attempts, r.outcome, r.code, r.enhanced, r.reply, r.class
        ), told as (
            insert into event (delivery_id, site_id, broadcast_id, kind, at, attempt, code, enhanced, reply, bounce_class, owner_id)
            select id, site_id, broadcast_id, outcome, clock_timestamp(), attempts, code, enhanced, reply, class, p_owner from kept
        )
        select count(*) into v_kept from kept;
    end if;

    -- Only what has just bounced here: a look into `ended` would go through every day's partition.
    if v_dead is not null and cardinality(array_remove(p_suppress, null)) > 0 then
        perform suppress_bounced(p_ids, p_suppress, p_replies, v_dead, v_dead_sites, v_dead_keys);
    end if;

    -- A 250 for what had been given up as unresolved, handed to another, or, once in doubt, cancelled or expired: rare, and still the truth.
    if v_ended < (select count(*) from unnest(p_outcomes) o where o >= 'delivered') and 'delivered' = any (p_outcomes) then
        with r as (select r.id, r.code, r.enhanced, r.reply, r.class
                     from unnest(p_ids, p_outcomes, p_codes, p_enhanced, p_replies, p_classes) r(id, outcome, code, enhanced, reply, class)
                    where r.outcome = 'delivered'
        ), late as (
            update ended e set state = 'delivered', code = r.code, enhanced = r.enhanced, reply = r.reply, bounce_class = r.class from r
             where e.id = any (p_ids) and e.id = r.id
               and (e.state = 'unresolved' or e.state in ('cancelled', 'expired') and e.doubts > 0)
            returning e.site_id, e.broadcast_id, old.state as was
        ), moved as (
            insert into tally as t (broadcast_id, site_id, state, shard, n)
            select l.broadcast_id, l.site_id, s.state, p_owner % 64, sum(s.by) from late l
             cross join lateral (values ('delivered'::delivery_state, 1), (l.was, -1)) s(state, by)
             group by 1, 2, 3 order by 1, 2, 3
            on conflict (broadcast_id, site_id, state, shard) do update set n = t.n + excluded.n
        )
        select count(*) into v_late from late;
    end if;
    return v_ended + v_kept + v_late;
end $$;

CREATE FUNCTION public.broadcast_waiting(p_broadcast bigint) RETURNS TABLE(state public.delivery_state, n bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'public'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
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

CREATE FUNCTION public.cancel_broadcast_rows(p_broadcast bigint, p_limit integer, p_shard integer) RETURNS integer
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION public.cancel_message(p_message bigint) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public'
    SET lock_timeout TO '500ms'
    AS $$
begin
    return end_deliveries(lock_deliveries(p_message, '{queued,deferred,held}'), 'cancelled', pg_backend_pid(), '{queued,deferred,held}',
                          'cancelled by its sender');
end $$;

CREATE FUNCTION public.claim(p_owner integer, p_alive integer[], p_total integer, p_credit integer, p_slots integer, p_busy integer[], p_busy_credit integer[], p_urgent_only boolean, p_since timestamp with time zone, p_lanes integer) RETURNS TABLE(id bigint, epoch integer, lane_id integer, flow_id bigint, site_id integer, message_id bigint, broadcast_id bigint, priority smallint, attempts smallint, crashes smallint, doubts smallint, recipient text, variables text, accepted_at timestamp with time zone, expires_at timestamp with time zone, suppressed boolean, leave_at double precision, turn_ends double precision, claimed_at double precision, more boolean, peak_per_s double precision, burst double precision, slots integer)
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
    quantum_s constant double precision := 0.16;   -- how far ahead a grant may borrow
    pace constant double precision := 0.968;       -- of its rate a lane is paced at; throttle/bucket says why, of all three
    plan_pace constant double precision := 0.980;  -- within a turn, what is planned
    peak_pace constant double precision := 0.985;  -- within a turn, what catches up
    flows_looked_at constant integer := 16;
    flow_rows constant integer := 256;             -- a flow alone in its lane is written once in so many of its rows
    v_now timestamptz := clock_timestamp();
    v_held_broadcasts bigint[]; v_held_sites bigint[];
    v_lane integer[]; v_ct tid[]; v_n integer[]; v_t0 timestamptz[]; v_rate double precision[]; v_burst double precision[];
    v_v0 double precision[]; v_v1 double precision[]; v_slots integer[];
begin
    if exists (select from hold h where h.kind = 'fleet' and (h.until_at is null or h.until_at > v_now)) then return; end if;

    with urgent as materialized (
        select l.ctid as ct, l.lane_id, l.rate_per_s * pace as rate_per_s, l.burst, l.tat, l.vtime, l.slots, l.max_connections, l.ready_at, 0 as class
          from lane_state l where l.urgent and l.ready_at <= v_now
           and l.lane_id <> all (case when p_urgent_only then '{}'::integer[] else
               array(select b.lane from unnest(p_busy, p_busy_credit) b(lane, credit) where b.credit <= 0) end)
         order by l.ready_at limit p_lanes for no key update skip locked
    ), others as materialized (
        select l.ctid as ct, l.lane_id, l.rate_per_s * pace as rate_per_s, l.burst, l.tat, l.vtime, l.slots, l.max_connections, l.ready_at, 1 as class
          from lane_state l where not p_urgent_only and not l.urgent and l.ready_at between p_since and v_now
           and l.lane_id <> all (array(select b.lane from unnest(p_busy, p_busy_credit) b(lane, credit) where b.credit <= 0))
         order by l.ready_at limit p_lanes for no key update skip locked
    ), ready as (
        select r.*, case when p_urgent_only then greatest(p_credit, 1) else coalesce(b.credit, p_credit) end as credit,
               least(greatest(r.tat, v_now),      -- a clock that went back must not put the lane to sleep for an hour
                     v_now + make_interval(secs => (r.burst + 1) / r.rate_per_s + quantum_s)) as t0,
               case when r.slots = '{}' then least(r.max_connections, p_slots) else
                 (select least(r.max_connections - coalesce(sum(r.slots[i + 1]) filter (where r.slots[i] <> p_owner and r.slots[i] = any (p_alive)), 0),
                               greatest(p_slots, coalesce(max(r.slots[i + 1]) filter (where r.slots[i] = p_owner), 0)))::integer
                    from generate_series(1, cardinality(r.slots), 2) i) end as granted_slots
          from (select * from urgent union all select * from others) r
          left join unnest(p_busy, p_busy_credit) b(lane, credit) on b.lane = r.lane_id
    ), sized as (
        select r.*, case when r.granted_slots <= 0 then 0 else greatest(0, least(r.credit, floor(
                    r.rate_per_s * extract(epoch from v_now - r.t0)::double precision + r.burst
                    + greatest(1, r.rate_per_s * quantum_s))))::integer end as n
          from ready r
    ), summed as (
        select s.*, sum(s.n) over (order by s.class, s.ready_at, s.lane_id) - s.n as before from sized s
    )
    select array_agg(lane_id), array_agg(ct), array_agg(least(n, p_total - before)::integer), array_agg(t0),
           array_agg(rate_per_s), array_agg(burst), array_agg(vtime[1]), array_agg(vtime[2]), array_agg(granted_slots)
      into v_lane, v_ct, v_n, v_t0, v_rate, v_burst, v_v0, v_v1, v_slots
      from summed where before < p_total;
    if v_lane is null then return; end if;

    -- Under the lanes' locks: a hold that is seen here was still there when they were taken, so whoever lifts it wakes the
    -- lanes after us; read before, it could put to sleep what has just been resumed.
    select coalesce(array_agg(h.ref) filter (where h.kind = 'broadcast'), '{}'), coalesce(array_agg(h.ref) filter (where h.kind = 'site'), '{}')
      into v_held_broadcasts, v_held_sites from hold h where h.until_at is null or h.until_at > v_now;

    return query
    with granted as materialized (
        select * from unnest(v_lane, v_ct, v_n, v_t0, v_rate, v_burst, v_v0, v_v1, v_slots)
            as g(lane, ct, n, t0, rate, burst, v0, v1, slots)
    ), flows as materialized (
        select g.lane, g.n, x.*, case when x.held then 0
               else least(g.n, case when count(*) over same = 1 then g.n else ceil(2 * g.n * x.weight / sum(x.weight) over same)::integer + 1 end)
               end as lim
          from granted g cross join lateral (
            select f.ctid as fct, f.id as flow, f.priority as prio, f.weight, f.floor,
                   greatest(f.vtag, case f.priority when 0 then g.v0 else g.v1 end) as tag,
                   f.broadcast_id = any (v_held_broadcasts) or f.site_id = any (v_held_sites) as held
              from flow f where f.lane_id = g.lane and f.active and (f.priority = 0 or not p_urgent_only)
             order by f.priority, greatest(f.vtag, case f.priority when 0 then g.v0 else g.v1 end) limit flows_looked_at) x
         where g.n > 0
        window same as (partition by g.lane, x.prio)
    ), candidates as materialized (
        select f.lane, f.n, f.flow, f.prio, f.tag + (d.rn - 1) / f.weight as start, d.qid, d.seq
          from flows f cross join lateral (
            select q.id as qid, q.seq, row_number() over () as rn from (
                select q.id, q.seq from queue q
                 where q.flow_id = f.flow and q.state = 'queued' and q.seq >= f.floor
                 order by q.seq, q.id limit f.lim for update skip locked) q) d
         where f.lim > 0
    ), picked as materialized (
        select * from (select c.*, row_number() over (partition by c.lane order by c.prio, c.start, c.qid) as place
                         from candidates c) z where z.place <= z.n
    ), used as materialized (
        select f.lane, f.fct, f.prio, f.tag, coalesce(p.k, 0) as k, coalesce(p.last_start + 1 / f.weight, f.tag) as next_start, p.last_seq,
               case when f.held then false else coalesce(c.k, 0) = f.lim or coalesce(c.k, 0) > coalesce(p.k, 0) end as more,
               count(*) over (partition by f.lane) = 1 as alone
          from flows f
          left join (select flow, count(*) k from candidates group by flow) c on c.flow = f.flow
          left join (select flow, count(*) k, max(start) last_start, max(seq) last_seq from picked group by flow) p on p.flow = f.flow
    ), flow_update as (
        update flow f set active = u.more, used_at = v_now,
               vtag = case when u.k > 0 then u.next_start else f.vtag end, floor = coalesce(u.last_seq, f.floor)
          -- Alone in its lane, its tag is the lane's virtual time, and its floor may lag: while an old snapshot is held, each version of
          -- this row is looked at by every later claim.
          from used u where f.ctid = u.fct and (not u.more or u.k > 0 and (not u.alone or (u.next_start - f.vtag) * f.weight >= flow_rows))
    ), by_lane as materialized (
        select u.lane, sum(u.k) as k, bool_or(u.more) as more, count(*) as looked_at, bool_or(u.more and u.prio = 0) as urgent_more,
               -- The virtual time is where the next in line starts; only who still waits can hold it back, looked at or not (the
               -- last one's tag bounds theirs). With the lowest start that was served, a site that trickles kept it down, and a
               -- newcomer went before everybody for hours; and of 60 flows 12 had nothing when the others had 20 each.
               least(coalesce(min(u.next_start) filter (where u.prio = 0 and u.more), max(u.next_start) filter (where u.prio = 0 and u.k > 0)),
                     case when count(*) >= flows_looked_at then max(u.tag) filter (where u.prio = 0) end) as v0,
               least(coalesce(min(u.next_start) filter (where u.prio = 1 and u.more), max(u.next_start) filter (where u.prio = 1 and u.k > 0)),
                     case when count(*) >= flows_looked_at then max(u.tag) filter (where u.prio = 1) end) as v1
          from used u group by u.lane
    ), turns as materialized (
        select g.*, b.more or b.looked_at >= flows_looked_at as more,
               greatest(extract(epoch from g.t0)::double precision + (b.k - g.burst) / g.rate,
                        extract(epoch from v_now)::double precision) + 0.5 * (g.burst - 1) / g.rate as turn_ends
          from granted g join by_lane b on b.lane = g.lane
    ), lane_update as (
        update lane_state l set
               tat = case when b.k > 0 then g.t0 + make_interval(secs => b.k / g.rate) else l.tat end,
               -- half of what may be borrowed is left when the next claim comes: a late claim loses no token
               token_at = case when g.n = 0 or b.k > 0 then greatest(v_now + interval '1 millisecond',
                   g.t0 + make_interval(secs => (coalesce(b.k, 0) - g.burst - 0.5 * (greatest(1, g.rate * quantum_s) - 1)) / g.rate))
                   else l.token_at end,
               next_due = case when p_urgent_only or g.n = 0 or b.more or b.looked_at >= flows_looked_at then
                   least(l.next_due, v_now) + (case when p_urgent_only or g.n = 0 then interval '0' else v_now - least(l.next_due, v_now) end)
                   else 'infinity' end,
               urgent = case when g.n = 0 then l.urgent else coalesce(b.urgent_more, false) end,
               vtime = array[greatest(g.v0, coalesce(b.v0, g.v0)), greatest(g.v1, coalesce(b.v1, g.v1))],
               used_at = v_now,
               -- only who gets rows has the slots: nobody else would give them back
               slots = case when coalesce(b.k, 0) = 0 or l.slots = array[p_owner, g.slots] then l.slots else
                   array[p_owner, g.slots] || (select coalesce(array_agg(e order by i, w), '{}') from (
                       select i, w, l.slots[i + w] as e from generate_series(1, cardinality(l.slots), 2) i, generate_series(0, 1) w
                        where l.slots[i] <> p_owner and l.slots[i] = any (p_alive)) kept) end
          from granted g left join by_lane b on b.lane = g.lane
         where l.ctid = g.ct and g.slots > 0
    ), taken as (
        update queue q set state = 'leased', owner_id = p_owner, epoch = q.epoch + 1
         where q.id = any (array(select p.qid from picked p))
        returning q.id, q.epoch, q.lane_id, q.flow_id, q.site_id, q.message_id, q.broadcast_id, q.priority, q.attempts, q.crashes,
                  q.doubts, q.recipient, q.variables, q.accepted_at, q.expires_at
    )
    (select t.id, t.epoch, t.lane_id, t.flow_id, t.site_id, t.message_id, t.broadcast_id, t.priority, t.attempts, t.crashes, t.doubts,
           t.recipient, t.variables, t.accepted_at, t.expires_at,
           exists (select from suppression s where s.site_id = t.site_id and s.email_key = lower(t.recipient)
                      and (s.scope = 'all' or t.priority = 1)),
           extract(epoch from g.t0)::double precision + (p.place - g.burst) / g.rate * (pace / plan_pace),
           g.turn_ends, extract(epoch from v_now)::double precision, g.more, g.rate * (peak_pace / pace), g.burst, g.slots
      from taken t join picked p on p.qid = t.id join turns g on g.lane = p.lane
     order by p.lane, p.place)
    union all
    select null, null, g.lane, null, null, null, null, null, null, null, null, null, null, null, null, null,
           null, null, extract(epoch from v_now)::double precision, null, g.rate * (peak_pace / pace), g.burst, 0
      from granted g where g.slots <= 0;
end $$;

CREATE FUNCTION public.current_site() RETURNS integer
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (NULLIF(NULLIF(current_setting('gateway.site_id'::text, true), '*'::text), ''::text))::integer;

CREATE FUNCTION public.end_deliveries(p_ids bigint[], p_state public.delivery_state, p_shard integer, p_from public.delivery_state[], p_reason text) RETURNS integer
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
declare v_count integer;
begin
    with gone as (
        delete from queue q where q.id = any (p_ids) and q.state = any (p_from) returning q.*
    ), done as (
        insert into ended (id, site_id, message_id, broadcast_id, lane_id, priority, state, attempts, doubts, reply, bounce_class,
                           accepted_at, ended_at, recipient)
        select id, site_id, message_id, broadcast_id, lane_id, priority, p_state, attempts, doubts, coalesce(last_reply, p_reason),
               last_class, accepted_at, clock_timestamp(), recipient from gone
    ), tallied as (
        insert into tally as t (broadcast_id, site_id, state, shard, n)
        select broadcast_id, site_id, p_state, p_shard % 64, count(*) from gone group by 1, 2 order by 1, 2
        on conflict (broadcast_id, site_id, state, shard) do update set n = t.n + excluded.n
    )
    select count(*) into v_count from gone;
    return v_count;
end $$;

CREATE FUNCTION public.ensure_flows(p_lanes integer[], p_priority smallint, p_site integer, p_broadcast bigint) RETURNS TABLE(lane_id integer, flow_id bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public'
    AS $$
#variable_conflict use_column
begin
    insert into flow (lane_id, priority, site_id, broadcast_id)
    select l, p_priority, p_site, p_broadcast from unnest(p_lanes) l
     where not exists (select from flow f where f.lane_id = l and f.priority = p_priority and f.site_id = p_site and f.broadcast_id = p_broadcast)
     order by l on conflict do nothing;
    return query select f.lane_id, f.id from flow f
      where f.lane_id = any (p_lanes) and f.priority = p_priority and f.site_id = p_site and f.broadcast_id = p_broadcast;
end $$;

CREATE FUNCTION public.ensure_lanes(p_domains text[], p_rates double precision[], p_bursts double precision[], p_connections integer[]) RETURNS TABLE(domain text, lane_id integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
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

CREATE FUNCTION public.expire_ready(p_limit integer, p_shard integer) RETURNS integer
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
declare v_now constant timestamptz := clock_timestamp(); v_ids bigint[];
begin
    select array_agg(x.id) into v_ids from (
        select q.id from queue q where q.state in ('queued', 'held') and q.expires_at <= v_now
         order by q.expires_at limit p_limit for update skip locked) x;
    return case when v_ids is null then 0 else end_deliveries(v_ids, 'expired', p_shard, '{queued,held}', 'expired before it could be sent') end;
end $$;

CREATE FUNCTION public.find_key(p_prefix text) RETURNS TABLE(id integer, site_id integer, hash bytea, scopes text[], site_status text, campaigns boolean)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public'
    AS $$
    select k.id, k.site_id, k.hash, k.scopes, s.status, s.campaigns from api_key k left join site s on s.id = k.site_id
     where k.prefix = p_prefix and k.revoked_at is null
$$;

CREATE FUNCTION public.flow_turns(p_flows bigint[], p_seqs bigint[], p_most integer) RETURNS TABLE(flow_id bigint, ahead integer, sharing integer)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
    select f.id,
           (select count(*) from (select from queue q where q.flow_id = f.id and q.state = 'queued' and q.seq >= f.floor and q.seq < w.seq
                                   order by q.seq limit p_most) x)::integer,
           (select count(*) from (select from flow o where o.lane_id = f.lane_id and o.active and o.priority <= f.priority limit p_most) y)::integer
      from unnest(p_flows, p_seqs) w(id, seq) join flow f on f.id = w.id
     where current_setting('role') <> 'gateway_api' or f.site_id = current_site() or is_operator()
$$;

CREATE FUNCTION public.hold_message(p_message bigint) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public'
    SET enable_seqscan TO 'off'
    SET lock_timeout TO '500ms'
    AS $$
declare v_ids constant bigint[] := lock_deliveries(p_message, '{queued,deferred}'); v_count integer;
begin
    with held as (
        update queue q set state = 'held' where q.id = any (v_ids) and q.state in ('queued', 'deferred')
        returning q.id, q.site_id, q.broadcast_id, q.attempts
    ), told as (
        insert into event (delivery_id, site_id, broadcast_id, kind, at, attempt)
        select id, site_id, broadcast_id, 'held', clock_timestamp(), attempts from held
    )
    select count(*) into v_count from held;
    return v_count;
end $$;

CREATE FUNCTION public.is_operator() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN COALESCE((current_setting('gateway.site_id'::text, true) = '*'::text), false);

CREATE FUNCTION public.lane_backlogs(p_lanes integer[], p_most integer) RETURNS TABLE(lane_id integer, ready integer, waiting integer, leased integer)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'public'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
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

CREATE FUNCTION public.limit_lane(p_lane integer, p_rate double precision, p_burst double precision, p_connections integer, p_seconds double precision, p_why text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION public.lock_deliveries(p_message bigint, p_states public.delivery_state[]) RETURNS bigint[]
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
declare v_ids bigint[];
begin
    select array_agg(x.id) into v_ids from (
        select q.id from acceptance a cross join lateral (
            select q.id from queue q where q.id between a.id * 1024 and a.id * 1024 + a.deliveries - 1 and q.state = any (p_states)
             order by q.id for update) q
         where a.message_id = p_message and a.broadcast_id = 0
           and (current_setting('role') <> 'gateway_api' or a.site_id = current_site() or is_operator())) x;
    return coalesce(v_ids, '{}');
end $$;

CREATE FUNCTION public.make_partitions(p_days_ahead integer DEFAULT 3) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
    parent text; day date; made integer := 0;
begin
    foreach parent in array array['ended', 'event'] loop
        for day in select generate_series(current_date, current_date + p_days_ahead, interval '1 day')::date loop
            if to_regclass(format('%I', parent || to_char(day, '_YYYYMMDD'))) is null then
                execute format('create table %I partition of %I for values from (%L) to (%L)',
                    parent || to_char(day, '_YYYYMMDD'), parent, day::timestamptz, (day + 1)::timestamptz);
                made := made + 1;
            end if;
        end loop;
    end loop;
    return made;
end $$;

CREATE FUNCTION public.message_at(p_site integer, p_at timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
declare v_low bigint; v_high bigint; v_middle bigint; v_id bigint; v_created timestamptz;
begin
    -- Compared as pairs: with site_id = p_site the primary key would do too, and the messages of all other sites be walked.
    select m.id into v_low from message m where (m.site_id, m.id) >= (p_site, 0) and (m.site_id, m.id) < (p_site + 1, 0)
     order by m.site_id, m.id limit 1;
    select m.id + 1 into v_high from message m where (m.site_id, m.id) >= (p_site, 0) and (m.site_id, m.id) < (p_site + 1, 0)
     order by m.site_id desc, m.id desc limit 1;
    while v_low < v_high loop
        v_middle := v_low + (v_high - v_low) / 2;
        select m.id, m.created_at into v_id, v_created from message m
         where (m.site_id, m.id) >= (p_site, v_middle) and (m.site_id, m.id) < (p_site, v_high) order by m.site_id, m.id limit 1;
        if v_id is not null and v_created < p_at then
            v_low := v_id + 1;
        else
            v_high := v_middle;
        end if;
    end loop;
    return coalesce(v_low, 0);
end $$;

CREATE FUNCTION public.need_operator() RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if current_setting('role') = 'gateway_api' and not is_operator() then
        raise insufficient_privilege using message = 'this is for operators';
    end if;
end $$;

CREATE FUNCTION public.promote(p_limit integer, p_shard integer, OUT promoted integer, OUT expired integer, OUT unresolved integer) RETURNS record
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION public.ready_floor() RETURNS timestamp with time zone
    LANGUAGE sql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
    select least(clock_timestamp() - interval '1 second',
        (select l.ready_at from lane_state l order by l.ready_at limit 1))
$$;

CREATE FUNCTION public.reap(p_flow_idle interval, p_lane_idle interval, p_limit integer) RETURNS integer
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION public.release(p_owner integer, p_ids bigint[], p_epochs integer[]) RETURNS integer
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_nestloop TO 'off'
    AS $$
declare v_flows bigint[]; v_seqs bigint[]; v_count integer;
begin
    with back as (
        update queue q set state = 'queued', owner_id = null, crashes = 0
          from unnest(p_ids, p_epochs) r(id, epoch)
         where q.id = any (p_ids) and q.id = r.id and q.epoch = r.epoch and q.owner_id = p_owner and q.state = 'leased'
        returning q.flow_id, q.seq)
    select array_agg(f), array_agg(s), sum(k) into v_flows, v_seqs, v_count
      from (select flow_id f, min(seq) s, count(*) k from back group by flow_id) x;
    if v_flows is not null then perform wake(v_flows, v_seqs); end if;
    return coalesce(v_count, 0);
end $$;

CREATE FUNCTION public.release_message(p_message bigint) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public'
    SET enable_seqscan TO 'off'
    SET lock_timeout TO '500ms'
    AS $$
declare v_ids constant bigint[] := lock_deliveries(p_message, '{held}'); v_flows bigint[]; v_seqs bigint[]; v_count integer;
begin
    with back as (
        update queue q set state = case when q.due_at > clock_timestamp() then 'deferred'::delivery_state else 'queued' end
         where q.id = any (v_ids) and q.state = 'held'
        returning q.id, q.site_id, q.broadcast_id, q.attempts, q.flow_id, q.seq, q.state
    ), told as (
        insert into event (delivery_id, site_id, broadcast_id, kind, at, attempt)
        select id, site_id, broadcast_id, 'released', clock_timestamp(), attempts from back
    ), flows as (
        select flow_id, min(seq) filter (where state = 'queued') as seq, count(*) as n from back group by flow_id
    )
    select array_agg(flow_id) filter (where seq is not null), array_agg(seq) filter (where seq is not null), coalesce(sum(n), 0)
      into v_flows, v_seqs, v_count from flows;
    if v_flows is not null then perform wake(v_flows, v_seqs); end if;
    return v_count;
end $$;

CREATE FUNCTION public.release_slots(p_owner integer, p_lanes integer[]) RETURNS void
    LANGUAGE sql
    SET enable_seqscan TO 'off'
    AS $$
    update lane_state l set slots = (select coalesce(array_agg(e order by i, w), '{}') from (
            select i, w, l.slots[i + w] as e from generate_series(1, cardinality(l.slots), 2) i, generate_series(0, 1) w
             where l.slots[i] <> p_owner) kept)
      from (select lane_id from lane_state where lane_id = any (p_lanes) order by lane_id for no key update) locked
     where l.lane_id = locked.lane_id and p_owner = any (l.slots)
$$;

CREATE FUNCTION public.release_unknown(p_owner integer, p_known bigint[]) RETURNS integer
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
declare v_ids bigint[]; v_epochs integer[];
begin
    select array_agg(q.id), array_agg(q.epoch) into v_ids, v_epochs from queue q
     where q.owner_id = p_owner and q.state = 'leased' and q.id <> all (p_known);
    return case when v_ids is null then 0 else release(p_owner, v_ids, v_epochs) end;
end $$;

CREATE FUNCTION public.rescue(p_dead integer, p_journal boolean, p_in_doubt bigint[], p_started bigint[], p_transactional_wait_s double precision, p_bulk_wait_s double precision, p_quarantine_after integer) RETURNS TABLE(state text, n bigint)
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare v_flows bigint[]; v_seqs bigint[]; v_bad bigint[]; v_quarantined integer := 0;
begin
    drop table if exists pg_temp.rescued;
    create temp table rescued on commit drop as
    with moved as (
        update queue q set owner_id = null,
               state = case when not p_journal or q.id = any (p_in_doubt) then 'in_doubt'::delivery_state else 'queued' end,
               doubts = q.doubts + (not p_journal or q.id = any (p_in_doubt))::integer,
               crashes = q.crashes + (p_journal and q.id = any (p_started) and not q.id = any (p_in_doubt))::integer,
               due_at = case when not p_journal or q.id = any (p_in_doubt) then
                   least(q.expires_at, case when q.priority = 1 and q.doubts >= 1 then 'infinity'
                       else clock_timestamp() + make_interval(secs => case q.priority when 0 then p_transactional_wait_s else p_bulk_wait_s end) end)
                   else q.due_at end,
               last_class = case when not p_journal or q.id = any (p_in_doubt) then 'in_doubt' else q.last_class end,
               last_reply = case when not p_journal then 'the dispatcher and its journal were lost'
                                 when q.id = any (p_in_doubt) then 'the dispatcher died between the final dot and its reply'
                                 else q.last_reply end
         where q.owner_id = p_dead and q.state = 'leased'
        returning q.id, q.site_id, q.broadcast_id, q.flow_id, q.seq, q.state, q.crashes, q.attempts)
    select * from moved;

    insert into event (delivery_id, site_id, broadcast_id, kind, at, attempt, reply, owner_id)
    select r.id, r.site_id, r.broadcast_id, case when r.state = 'in_doubt' then 'in_doubt' else 'suspect' end, clock_timestamp(), r.attempts,
           'rescued from a dispatcher that died', p_dead
      from rescued r where r.state = 'in_doubt' or r.crashes > 0;

    select array_agg(r.id) into v_bad from rescued r where r.state = 'queued' and r.crashes >= p_quarantine_after;
    if v_bad is not null then
        v_quarantined := end_deliveries(v_bad, 'quarantined', p_dead, '{queued}', 'its dispatcher died ' || p_quarantine_after || ' times while it was being made');
    end if;
    select array_agg(f), array_agg(s) into v_flows, v_seqs from (
        select r.flow_id f, min(r.seq) s from rescued r where r.state = 'queued' group by r.flow_id) x;
    if v_flows is not null then perform wake(v_flows, v_seqs); end if;

    update incarnation i set status = 'closed', ended_at = coalesce(i.ended_at, now()) where i.id = p_dead;
    return query select r.state::text, count(*) from rescued r group by r.state
        union all select 'quarantined', v_quarantined::bigint where v_quarantined > 0;
end $$;

CREATE FUNCTION public.rescue(p_dead integer, p_journal boolean, p_in_doubt bigint[], p_in_doubt_epochs integer[], p_started bigint[], p_started_epochs integer[], p_transactional_wait_s double precision, p_bulk_wait_s double precision, p_quarantine_after integer) RETURNS TABLE(state text, n bigint)
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare v_flows bigint[]; v_seqs bigint[]; v_bad bigint[]; v_quarantined integer := 0;
begin
    drop table if exists pg_temp.rescued;
    create temp table rescued on commit drop as
    with held as materialized (
        select q.id, not p_journal or d.id is not null as doubted, p_journal and s.id is not null and d.id is null as begun
          from queue q
          left join unnest(p_in_doubt, p_in_doubt_epochs) d(id, epoch) on d.id = q.id and d.epoch = q.epoch
          left join unnest(p_started, p_started_epochs) s(id, epoch) on s.id = q.id and s.epoch = q.epoch
         where q.owner_id = p_dead and q.state = 'leased'
    ), moved as (
        update queue q set owner_id = null,
               state = case when h.doubted then 'in_doubt'::delivery_state else 'queued' end,
               doubts = q.doubts + h.doubted::integer,
               crashes = q.crashes + h.begun::integer,
               due_at = case when h.doubted then
                   least(q.expires_at, case when q.priority = 1 and q.doubts >= 1 then 'infinity'
                       else clock_timestamp() + make_interval(secs => case q.priority when 0 then p_transactional_wait_s else p_bulk_wait_s end) end)
                   else q.due_at end,
               last_class = case when h.doubted then 'in_doubt' else q.last_class end,
               last_reply = case when not h.doubted then q.last_reply
                                 when p_journal then 'the dispatcher died between the final dot and its reply'
                                 else 'the dispatcher and its journal were lost' end
          from held h where q.id = h.id and q.owner_id = p_dead and q.state = 'leased'
        returning q.id, q.site_id, q.broadcast_id, q.flow_id, q.seq, q.state, q.crashes, q.attempts)
    select * from moved;

    insert into event (delivery_id, site_id, broadcast_id, kind, at, attempt, reply, owner_id)
    select r.id, r.site_id, r.broadcast_id, case when r.state = 'in_doubt' then 'in_doubt' else 'suspect' end, clock_timestamp(), r.attempts,
           'rescued from a dispatcher that died', p_dead
      from rescued r where r.state = 'in_doubt' or r.crashes > 0;

    select array_agg(r.id) into v_bad from rescued r where r.state = 'queued' and r.crashes >= p_quarantine_after;
    if v_bad is not null then
        v_quarantined := end_deliveries(v_bad, 'quarantined', p_dead, '{queued}', 'its dispatcher died ' || p_quarantine_after || ' times while it was being made');
    end if;
    select array_agg(f), array_agg(s) into v_flows, v_seqs from (
        select r.flow_id f, min(r.seq) s from rescued r where r.state = 'queued' group by r.flow_id) x;
    if v_flows is not null then perform wake(v_flows, v_seqs); end if;

    update incarnation i set status = 'closed', ended_at = coalesce(i.ended_at, now()) where i.id = p_dead;
    return query select r.state::text, count(*) from rescued r group by r.state
        union all select 'quarantined', v_quarantined::bigint where v_quarantined > 0;
end $$;

CREATE FUNCTION public.resume_lane(p_lane integer) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public'
    SET enable_seqscan TO 'off'
    AS $$
begin
    perform need_operator();
    -- A claim looks from a floor on that is up to a second old: the lane must not become ready below it.
    update lane_state s set suspended_until = '-infinity', suspended_why = '', token_at = greatest(s.token_at, clock_timestamp())
     where s.lane_id = p_lane and s.suspended_until > clock_timestamp();
    return found;
end $$;

CREATE FUNCTION public.site_backlog(p_site integer, p_priority smallint, p_most integer) RETURNS integer
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
    select count(*)::integer from (
        select from flow f cross join lateral (
            (select 1 from queue q where q.flow_id = f.id and q.state = 'queued' and q.seq >= f.floor order by q.seq limit p_most)
            union all
            (select 1 from queue q where q.flow_id = f.id and q.state in ('deferred', 'in_doubt') limit p_most)) x
         where f.site_id = p_site and f.priority = p_priority and (current_setting('role') <> 'gateway_api' or p_site = current_site() or is_operator())
         limit p_most) y
$$;

CREATE FUNCTION public.submit(p_site integer, p_keys text[], p_hashes bytea[], p_statuses smallint[], p_answers bytea[], p_accepted timestamp with time zone, p_messages bigint[], p_key_of text[], p_domains integer[], p_streams public.stream[], p_senders text[], p_reply_tos text[], p_subjects text[], p_htmls text[], p_texts text[], p_headers text[], p_templates text[], p_attachments bytea[], p_urgent integer, p_ids bigint[], p_of bigint[], p_recipients text[], p_variables text[], p_lanes integer[], p_flows bigint[], p_due timestamp with time zone[], p_expires timestamp with time zone[], p_alone boolean, OUT replayed boolean, OUT body_hash bytea, OUT status smallint, OUT answer bytea, OUT suppressed bigint[]) RETURNS record
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION public.suppress_bounced(p_ids bigint[], p_suppress text[], p_replies text[], p_dead bigint[], p_sites integer[], p_keys text[]) RETURNS void
    LANGUAGE sql
    SET enable_seqscan TO 'off'
    SET enable_nestloop TO 'on'
    AS $$
    with bad as (
        select d.site_id, d.email_key, s.reason, s.id, s.reply from unnest(p_ids, p_suppress, p_replies) s(id, reason, reply)
          join unnest(p_dead, p_sites, p_keys) d(id, site_id, email_key) on d.id = s.id where s.reason is not null
    ), listed as (
        insert into suppression (site_id, email_key, scope, reason, evidence, delivery_id)
        select site_id, email_key, 'all', reason, coalesce(left(reply, 300), ''), id from bad
         order by 1, 2 on conflict do nothing
    )
    delete from list_member m using bad b, contact c
     where c.site_id = b.site_id and c.email_key = b.email_key and m.contact_id = c.id
$$;

CREATE FUNCTION public.suspend_lane(p_lane integer, p_seconds double precision, p_why text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public'
    SET enable_seqscan TO 'off'
    AS $$
begin
    perform need_operator();
    update lane_state s set suspended_until = coalesce(clock_timestamp() + make_interval(secs => p_seconds), 'infinity'), suspended_why = p_why
     where s.lane_id = p_lane;
    return found;
end $$;

CREATE FUNCTION public.suspend_lanes(p_lanes integer[], p_seconds double precision[], p_why text[]) RETURNS void
    LANGUAGE sql
    SET enable_seqscan TO 'off'
    AS $$
    update lane_state l set suspended_until = greatest(l.suspended_until, clock_timestamp() + make_interval(secs => s.seconds)),
           suspended_why = case l.suspended_until when 'infinity' then l.suspended_why else s.why end
      from (select u.* from unnest(p_lanes, p_seconds, p_why) u(lane, seconds, why)
             order by u.lane) s
     where l.lane_id = any (p_lanes) and l.lane_id = s.lane
$$;

CREATE FUNCTION public.sweep() RETURNS integer
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
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

CREATE FUNCTION public.tally_suppressed(p_site integer, p_broadcast bigint, p_count integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public'
    AS $$
begin
    if current_setting('role') = 'gateway_api' and p_site is distinct from current_site() and not is_operator() or p_count < 0 then
        raise insufficient_privilege using message = format('site %s is not this transaction''s, or the count is below 0', p_site);
    end if;
    insert into tally as t (broadcast_id, site_id, state, shard, n) values (p_broadcast, p_site, 'suppressed', pg_backend_pid() % 64, p_count)
    on conflict (broadcast_id, site_id, state, shard) do update set n = t.n + excluded.n;
end $$;

CREATE FUNCTION public.touch_keys(p_ids integer[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public'
    AS $$
    update api_key set last_used_at = now() where id = any (p_ids)
$$;

CREATE FUNCTION public.unlimit_lane(p_lane integer) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public'
    AS $$
begin
    perform need_operator();
    update lane_override o set until_at = clock_timestamp() where o.lane_id = p_lane and o.until_at > clock_timestamp();
    return found;
end $$;

CREATE FUNCTION public.wake(p_flows bigint[], p_seqs bigint[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET enable_seqscan TO 'off'
    SET enable_nestloop TO 'on'
    SET search_path TO 'public'
    AS $$
begin
    perform 1 from lane_state l
      where l.lane_id = any (array(select f.lane_id from flow f where f.id = any (p_flows)))
      order by l.lane_id for no key update;
    update flow f set active = true, floor = least(f.floor, w.seq), used_at = now()
      from (select u.flow, min(u.seq) as seq from unnest(p_flows, p_seqs) u(flow, seq) group by u.flow) w
     where f.id = any (p_flows) and f.id = w.flow and (not f.active or f.floor > w.seq);
    update lane_state l set next_due = least(l.next_due, clock_timestamp()), urgent = l.urgent or w.urgent, used_at = now()
      from (select f.lane_id, bool_or(f.priority = 0) as urgent from flow f where f.id = any (p_flows) group by f.lane_id) w
     where l.lane_id = w.lane_id and (l.next_due > clock_timestamp() or (w.urgent and not l.urgent));
end $$;

CREATE FUNCTION public.wake_broadcast(p_broadcast bigint) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public'
    AS $$
begin
    if not exists (select from broadcast b where b.id = p_broadcast and (b.site_id = current_site() or is_operator())) then
        return 0;
    end if;
    return wake_held(p_broadcast, 0);
end $$;

CREATE FUNCTION public.wake_held(p_broadcast bigint, p_site integer) RETURNS integer
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION public.wake_site(p_site integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public'
    AS $$
begin
    perform need_operator();
    return wake_held(0, p_site);
end $$;

CREATE TABLE public.acceptance (
    id bigint NOT NULL,
    site_id integer NOT NULL,
    message_id bigint NOT NULL,
    broadcast_id bigint DEFAULT 0 NOT NULL,
    deliveries smallint NOT NULL,
    accepted_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT acceptance_deliveries_check CHECK (((deliveries >= 1) AND (deliveries <= 1024)))
);

CREATE SEQUENCE public.acceptance_id
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.api_key (
    id integer NOT NULL,
    site_id integer,
    name text DEFAULT ''::text NOT NULL,
    prefix text NOT NULL,
    hash bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    last_used_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT api_key_hash_check CHECK ((length(hash) = 32))
);

ALTER TABLE public.api_key ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.api_key_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.broadcast (
    id bigint NOT NULL,
    site_id integer NOT NULL,
    name text NOT NULL,
    list_id integer NOT NULL,
    template_id integer NOT NULL,
    domain_id integer NOT NULL,
    sender text NOT NULL,
    reply_to text DEFAULT ''::text NOT NULL,
    state public.broadcast_state DEFAULT 'draft'::public.broadcast_state NOT NULL,
    paused_by text DEFAULT ''::text NOT NULL,
    message_id bigint,
    expires_in_s integer DEFAULT 259200 NOT NULL,
    audience_until bigint,
    cursor bigint DEFAULT 0 NOT NULL,
    expanded boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    scheduled_at timestamp with time zone,
    detail text DEFAULT ''::text NOT NULL,
    CONSTRAINT broadcast_expires_in_s_check CHECK ((expires_in_s > 0))
);

ALTER TABLE public.broadcast ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.broadcast_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.contact (
    id bigint NOT NULL,
    site_id integer NOT NULL,
    email text NOT NULL,
    email_key text GENERATED ALWAYS AS (lower(email)) STORED,
    domain text NOT NULL,
    first_name text DEFAULT ''::text NOT NULL,
    last_name text DEFAULT ''::text NOT NULL,
    phone text DEFAULT ''::text NOT NULL,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    fields jsonb DEFAULT '{}'::jsonb NOT NULL,
    source text DEFAULT 'import'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE public.contact ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.contact_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.database_identity (
    single boolean DEFAULT true NOT NULL,
    id uuid DEFAULT uuidv7() NOT NULL,
    CONSTRAINT database_identity_single_check CHECK (single)
);

CREATE TABLE public.domain (
    id integer NOT NULL,
    site_id integer NOT NULL,
    name text NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    selector text NOT NULL,
    private_key_sealed bytea NOT NULL,
    public_key text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    verified_at timestamp with time zone,
    algorithm text DEFAULT 'rsa-sha256'::text NOT NULL,
    CONSTRAINT domain_algorithm_check CHECK ((algorithm = ANY (ARRAY['rsa-sha256'::text, 'ed25519-sha256'::text]))),
    CONSTRAINT domain_name_check CHECK ((name = lower(name))),
    CONSTRAINT domain_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'verified'::text, 'failed'::text])))
);

ALTER TABLE public.domain ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.domain_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.domain_key (
    id integer NOT NULL,
    domain_id integer NOT NULL,
    site_id integer NOT NULL,
    selector text NOT NULL,
    algorithm text NOT NULL,
    private_key_sealed bytea NOT NULL,
    public_key text NOT NULL,
    signs boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT domain_key_algorithm_check CHECK ((algorithm = ANY (ARRAY['rsa-sha256'::text, 'ed25519-sha256'::text])))
);

ALTER TABLE public.domain_key ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.domain_key_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.domain_lane (
    domain text NOT NULL,
    lane_id integer NOT NULL
);

CREATE TABLE public.ended (
    id bigint NOT NULL,
    site_id integer NOT NULL,
    message_id bigint NOT NULL,
    broadcast_id bigint NOT NULL,
    lane_id integer NOT NULL,
    priority smallint NOT NULL,
    state public.delivery_state NOT NULL,
    attempts smallint NOT NULL,
    doubts smallint NOT NULL,
    code smallint,
    enhanced text,
    reply text,
    bounce_class text,
    accepted_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone NOT NULL,
    recipient text NOT NULL,
    CONSTRAINT ended_state_check CHECK ((state >= 'delivered'::public.delivery_state))
)
PARTITION BY RANGE (accepted_at);

CREATE TABLE public.ended_rest (
    id bigint CONSTRAINT ended_id_not_null NOT NULL,
    site_id integer CONSTRAINT ended_site_id_not_null NOT NULL,
    message_id bigint CONSTRAINT ended_message_id_not_null NOT NULL,
    broadcast_id bigint CONSTRAINT ended_broadcast_id_not_null NOT NULL,
    lane_id integer CONSTRAINT ended_lane_id_not_null NOT NULL,
    priority smallint CONSTRAINT ended_priority_not_null NOT NULL,
    state public.delivery_state CONSTRAINT ended_state_not_null NOT NULL,
    attempts smallint CONSTRAINT ended_attempts_not_null NOT NULL,
    doubts smallint CONSTRAINT ended_doubts_not_null NOT NULL,
    code smallint,
    enhanced text,
    reply text,
    bounce_class text,
    accepted_at timestamp with time zone CONSTRAINT ended_accepted_at_not_null NOT NULL,
    ended_at timestamp with time zone CONSTRAINT ended_ended_at_not_null NOT NULL,
    recipient text CONSTRAINT ended_recipient_not_null NOT NULL,
    CONSTRAINT ended_state_check CHECK ((state >= 'delivered'::public.delivery_state))
);

CREATE TABLE public.event (
    delivery_id bigint NOT NULL,
    site_id integer NOT NULL,
    broadcast_id bigint NOT NULL,
    kind text NOT NULL,
    at timestamp with time zone NOT NULL,
    attempt smallint DEFAULT 0 NOT NULL,
    code smallint,
    enhanced text,
    reply text,
    bounce_class text,
    owner_id integer
)
PARTITION BY RANGE (at);

CREATE TABLE public.event_rest (
    delivery_id bigint CONSTRAINT event_delivery_id_not_null NOT NULL,
    site_id integer CONSTRAINT event_site_id_not_null NOT NULL,
    broadcast_id bigint CONSTRAINT event_broadcast_id_not_null NOT NULL,
    kind text CONSTRAINT event_kind_not_null NOT NULL,
    at timestamp with time zone CONSTRAINT event_at_not_null NOT NULL,
    attempt smallint DEFAULT 0 CONSTRAINT event_attempt_not_null NOT NULL,
    code smallint,
    enhanced text,
    reply text,
    bounce_class text,
    owner_id integer
);

CREATE SEQUENCE public.fleet_tick
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.flow (
    id bigint NOT NULL,
    lane_id integer NOT NULL,
    priority smallint NOT NULL,
    site_id integer NOT NULL,
    broadcast_id bigint DEFAULT 0 NOT NULL,
    weight real DEFAULT 1 NOT NULL,
    vtag double precision DEFAULT 0 NOT NULL,
    active boolean DEFAULT false NOT NULL,
    floor bigint DEFAULT 0 NOT NULL,
    used_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT flow_priority_check CHECK (((priority >= 0) AND (priority <= 1))),
    CONSTRAINT flow_weight_check CHECK ((weight > (0)::double precision))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_cost_delay='0');

ALTER TABLE public.flow ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.flow_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.hold (
    kind text NOT NULL,
    ref bigint NOT NULL,
    why text NOT NULL,
    until_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT hold_kind_check CHECK ((kind = ANY (ARRAY['broadcast'::text, 'site'::text, 'fleet'::text])))
);

CREATE TABLE public.idempotency (
    site_id integer NOT NULL,
    key text NOT NULL,
    body_hash bytea NOT NULL,
    status smallint,
    answer bytea,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    suppressed bigint[]
);

CREATE TABLE public.import (
    id integer NOT NULL,
    site_id integer NOT NULL,
    list_id integer,
    status text DEFAULT 'running'::text NOT NULL,
    rows_read integer DEFAULT 0 NOT NULL,
    created integer DEFAULT 0 NOT NULL,
    merged integer DEFAULT 0 NOT NULL,
    refused integer DEFAULT 0 NOT NULL,
    detail text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    CONSTRAINT import_status_check CHECK ((status = ANY (ARRAY['running'::text, 'completed'::text, 'failed'::text])))
);

CREATE TABLE public.import_error (
    import_id integer NOT NULL,
    site_id integer NOT NULL,
    line integer NOT NULL,
    column_name text DEFAULT ''::text NOT NULL,
    reason text NOT NULL,
    value text DEFAULT ''::text NOT NULL
);

ALTER TABLE public.import ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.import_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.incarnation (
    id integer NOT NULL,
    host_key text NOT NULL,
    pid integer NOT NULL,
    counter bigint DEFAULT 0 NOT NULL,
    status text DEFAULT 'live'::text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    CONSTRAINT incarnation_status_check CHECK ((status = ANY (ARRAY['live'::text, 'dead'::text, 'closed'::text])))
);

ALTER TABLE public.incarnation ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.incarnation_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.lane (
    id integer NOT NULL,
    name text NOT NULL,
    source text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE public.lane ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.lane_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.lane_override (
    lane_id integer NOT NULL,
    rate_per_s double precision,
    burst double precision,
    max_connections integer,
    until_at timestamp with time zone NOT NULL,
    why text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT lane_override_burst_check CHECK ((burst >= (1)::double precision)),
    CONSTRAINT lane_override_check CHECK ((num_nonnulls(rate_per_s, burst, max_connections) > 0)),
    CONSTRAINT lane_override_max_connections_check CHECK ((max_connections > 0)),
    CONSTRAINT lane_override_rate_per_s_check CHECK ((rate_per_s > (0)::double precision))
);

CREATE TABLE public.lane_state (
    lane_id integer NOT NULL,
    rate_per_s double precision NOT NULL,
    burst double precision NOT NULL,
    max_connections integer NOT NULL,
    tat timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    token_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    next_due timestamp with time zone DEFAULT 'infinity'::timestamp with time zone NOT NULL,
    suspended_until timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    suspended_why text DEFAULT ''::text NOT NULL,
    ready_at timestamp with time zone GENERATED ALWAYS AS (GREATEST(token_at, next_due, suspended_until)) STORED NOT NULL,
    urgent boolean DEFAULT false NOT NULL,
    vtime double precision[] DEFAULT '{0,0}'::double precision[] NOT NULL,
    slots integer[] DEFAULT '{}'::integer[] NOT NULL,
    used_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT lane_state_burst_check CHECK ((burst >= (1)::double precision)),
    CONSTRAINT lane_state_max_connections_check CHECK ((max_connections > 0)),
    CONSTRAINT lane_state_rate_per_s_check CHECK ((rate_per_s > (0)::double precision))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_cost_delay='0');

CREATE TABLE public.list (
    id integer NOT NULL,
    site_id integer NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT list_name_check CHECK ((name <> ''::text))
);

ALTER TABLE public.list ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.list_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.list_member (
    list_id integer NOT NULL,
    contact_id bigint NOT NULL,
    site_id integer NOT NULL,
    seq bigint NOT NULL,
    added_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE public.list_member ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.list_member_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.message (
    id bigint NOT NULL,
    site_id integer NOT NULL,
    domain_id integer NOT NULL,
    stream public.stream NOT NULL,
    sender text NOT NULL,
    reply_to text DEFAULT ''::text NOT NULL,
    subject text NOT NULL,
    html text DEFAULT ''::text NOT NULL,
    text text DEFAULT ''::text NOT NULL,
    headers jsonb DEFAULT '{}'::jsonb NOT NULL,
    template text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    attachments bytea
);
ALTER TABLE ONLY public.message ALTER COLUMN html SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.message ALTER COLUMN text SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.message ALTER COLUMN attachments SET STORAGE EXTERNAL;

CREATE TABLE public.queue (
    id bigint NOT NULL,
    seq bigint NOT NULL,
    flow_id bigint NOT NULL,
    lane_id integer NOT NULL,
    site_id integer NOT NULL,
    message_id bigint NOT NULL,
    broadcast_id bigint DEFAULT 0 NOT NULL,
    priority smallint NOT NULL,
    state public.delivery_state DEFAULT 'queued'::public.delivery_state NOT NULL,
    attempts smallint DEFAULT 0 NOT NULL,
    doubts smallint DEFAULT 0 NOT NULL,
    crashes smallint DEFAULT 0 NOT NULL,
    epoch integer DEFAULT 0 NOT NULL,
    owner_id integer,
    due_at timestamp with time zone NOT NULL,
    accepted_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    recipient text NOT NULL,
    variables text,
    last_class text,
    last_reply text
)
WITH (fillfactor='85', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='20000', autovacuum_vacuum_cost_delay='0');

CREATE TABLE public.site (
    id integer NOT NULL,
    name text NOT NULL,
    time_zone text DEFAULT 'UTC'::text NOT NULL,
    status text DEFAULT 'active'::text NOT NULL,
    campaigns boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT site_name_check CHECK ((name <> ''::text)),
    CONSTRAINT site_status_check CHECK ((status = ANY (ARRAY['active'::text, 'suspended'::text])))
);

ALTER TABLE public.site ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.site_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.suppression (
    site_id integer NOT NULL,
    email_key text NOT NULL,
    scope text NOT NULL,
    reason text NOT NULL,
    evidence text DEFAULT ''::text NOT NULL,
    delivery_id bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT suppression_scope_check CHECK ((scope = ANY (ARRAY['all'::text, 'marketing'::text])))
);

CREATE TABLE public.tally (
    site_id integer NOT NULL,
    broadcast_id bigint NOT NULL,
    state public.delivery_state NOT NULL,
    shard smallint NOT NULL,
    n bigint NOT NULL
)
WITH (fillfactor='30');

CREATE TABLE public.template (
    id integer NOT NULL,
    site_id integer NOT NULL,
    name text NOT NULL,
    version integer DEFAULT 1 NOT NULL,
    subject text NOT NULL,
    html text DEFAULT ''::text NOT NULL,
    text text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT template_name_check CHECK ((name <> ''::text))
);

ALTER TABLE public.template ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.template_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.trace_line (
    request_id bigint NOT NULL,
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    incarnation integer NOT NULL,
    connection integer NOT NULL,
    delivery_id bigint,
    direction text NOT NULL,
    line text NOT NULL,
    CONSTRAINT trace_line_direction_check CHECK ((direction = ANY (ARRAY['C'::text, 'S'::text, '*'::text]))),
    CONSTRAINT trace_line_line_check CHECK ((octet_length(line) <= 4096))
);

ALTER TABLE public.trace_line ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.trace_line_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.trace_request (
    id bigint NOT NULL,
    kind text NOT NULL,
    ref bigint NOT NULL,
    until_at timestamp with time zone NOT NULL,
    lines_left integer NOT NULL,
    asked_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT trace_request_check CHECK ((until_at <= (asked_at + '01:00:00'::interval))),
    CONSTRAINT trace_request_kind_check CHECK ((kind = ANY (ARRAY['lane'::text, 'message'::text, 'delivery'::text]))),
    CONSTRAINT trace_request_lines_left_check CHECK (((lines_left >= 0) AND (lines_left <= 2000)))
);

ALTER TABLE public.trace_request ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.trace_request_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.ended ATTACH PARTITION public.ended_rest DEFAULT;

ALTER TABLE ONLY public.event ATTACH PARTITION public.event_rest DEFAULT;

ALTER TABLE ONLY public.acceptance
    ADD CONSTRAINT acceptance_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.api_key
    ADD CONSTRAINT api_key_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.api_key
    ADD CONSTRAINT api_key_prefix_key UNIQUE (prefix);

ALTER TABLE ONLY public.broadcast
    ADD CONSTRAINT broadcast_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.contact
    ADD CONSTRAINT contact_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.contact
    ADD CONSTRAINT contact_site_id_email_key_key UNIQUE (site_id, email_key);

ALTER TABLE ONLY public.database_identity
    ADD CONSTRAINT database_identity_pkey PRIMARY KEY (single);

ALTER TABLE ONLY public.domain_key
    ADD CONSTRAINT domain_key_domain_id_selector_key UNIQUE (domain_id, selector);

ALTER TABLE ONLY public.domain_key
    ADD CONSTRAINT domain_key_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.domain_lane
    ADD CONSTRAINT domain_lane_pkey PRIMARY KEY (domain);

ALTER TABLE ONLY public.domain
    ADD CONSTRAINT domain_name_key UNIQUE (name);

ALTER TABLE ONLY public.domain
    ADD CONSTRAINT domain_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.ended
    ADD CONSTRAINT ended_pkey PRIMARY KEY (id, accepted_at);

ALTER TABLE ONLY public.ended_rest
    ADD CONSTRAINT ended_rest_pkey PRIMARY KEY (id, accepted_at);

ALTER TABLE ONLY public.flow
    ADD CONSTRAINT flow_lane_id_priority_site_id_broadcast_id_key UNIQUE (lane_id, priority, site_id, broadcast_id);

ALTER TABLE ONLY public.flow
    ADD CONSTRAINT flow_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.hold
    ADD CONSTRAINT hold_pkey PRIMARY KEY (kind, ref);

ALTER TABLE ONLY public.idempotency
    ADD CONSTRAINT idempotency_pkey PRIMARY KEY (site_id, key);

ALTER TABLE ONLY public.import_error
    ADD CONSTRAINT import_error_pkey PRIMARY KEY (import_id, line, column_name);

ALTER TABLE ONLY public.import
    ADD CONSTRAINT import_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.incarnation
    ADD CONSTRAINT incarnation_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.lane
    ADD CONSTRAINT lane_name_source_key UNIQUE (name, source);

ALTER TABLE ONLY public.lane_override
    ADD CONSTRAINT lane_override_pkey PRIMARY KEY (lane_id);

ALTER TABLE ONLY public.lane
    ADD CONSTRAINT lane_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.list_member
    ADD CONSTRAINT list_member_pkey PRIMARY KEY (list_id, contact_id);

ALTER TABLE ONLY public.list
    ADD CONSTRAINT list_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.list
    ADD CONSTRAINT list_site_id_name_key UNIQUE (site_id, name);

ALTER TABLE ONLY public.message
    ADD CONSTRAINT message_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.site
    ADD CONSTRAINT site_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.suppression
    ADD CONSTRAINT suppression_pkey PRIMARY KEY (site_id, email_key, scope);

ALTER TABLE ONLY public.tally
    ADD CONSTRAINT tally_pkey PRIMARY KEY (broadcast_id, site_id, state, shard);

ALTER TABLE ONLY public.template
    ADD CONSTRAINT template_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.template
    ADD CONSTRAINT template_site_id_name_key UNIQUE (site_id, name);

ALTER TABLE ONLY public.trace_line
    ADD CONSTRAINT trace_line_pkey PRIMARY KEY (request_id, id);

ALTER TABLE ONLY public.trace_request
    ADD CONSTRAINT trace_request_pkey PRIMARY KEY (id);

CREATE INDEX acceptance_broadcast ON public.acceptance USING btree (broadcast_id, id) WHERE (broadcast_id <> 0);

CREATE INDEX acceptance_message ON public.acceptance USING btree (message_id);

CREATE INDEX api_key_site ON public.api_key USING btree (site_id);

CREATE INDEX broadcast_message ON public.broadcast USING btree (message_id) WHERE (message_id IS NOT NULL);

CREATE INDEX broadcast_scheduled ON public.broadcast USING btree (scheduled_at) WHERE (state = 'scheduled'::public.broadcast_state);

CREATE INDEX broadcast_site ON public.broadcast USING btree (site_id, id);

CREATE INDEX broadcast_working ON public.broadcast USING btree (id) WHERE ((state = ANY (ARRAY['preparing'::public.broadcast_state, 'sending'::public.broadcast_state, 'paused'::public.broadcast_state, 'cancelled'::public.broadcast_state])) AND (ended_at IS NULL));

CREATE INDEX contact_site ON public.contact USING btree (site_id, id);

CREATE INDEX domain_lane_lane ON public.domain_lane USING btree (lane_id);

CREATE INDEX domain_site ON public.domain USING btree (site_id);

CREATE INDEX event_delivery ON ONLY public.event USING btree (delivery_id);

CREATE INDEX event_rest_delivery_id_idx ON public.event_rest USING btree (delivery_id);

CREATE INDEX flow_active ON public.flow USING btree (lane_id, priority) WHERE active;

CREATE INDEX flow_broadcast ON public.flow USING btree (broadcast_id) WHERE (broadcast_id <> 0);

CREATE INDEX flow_site ON public.flow USING btree (site_id);

CREATE INDEX idempotency_created ON public.idempotency USING btree (created_at);

CREATE INDEX import_site ON public.import USING btree (site_id, id);

CREATE INDEX incarnation_open ON public.incarnation USING btree (id) WHERE (status <> 'closed'::text);

CREATE INDEX lane_state_lane ON public.lane_state USING btree (lane_id);

CREATE INDEX lane_state_ready ON public.lane_state USING btree (ready_at);

CREATE INDEX lane_state_urgent ON public.lane_state USING btree (ready_at) WHERE urgent;

CREATE INDEX list_member_contact ON public.list_member USING btree (contact_id);

CREATE UNIQUE INDEX list_member_walk ON public.list_member USING btree (list_id, seq);

CREATE INDEX message_site ON public.message USING btree (site_id, id);

CREATE INDEX queue_expiry ON public.queue USING btree (expires_at) WHERE (state = ANY (ARRAY['queued'::public.delivery_state, 'held'::public.delivery_state]));

CREATE INDEX queue_held ON public.queue USING btree (broadcast_id) WHERE (state = 'held'::public.delivery_state);

CREATE INDEX queue_leased ON public.queue USING btree (owner_id) WHERE (state = 'leased'::public.delivery_state);

CREATE INDEX queue_ready ON public.queue USING btree (flow_id, seq, id) WHERE (state = 'queued'::public.delivery_state);

CREATE INDEX queue_waiting ON public.queue USING btree (due_at) WHERE (state = ANY (ARRAY['deferred'::public.delivery_state, 'in_doubt'::public.delivery_state]));

CREATE INDEX queue_waiting_flow ON public.queue USING btree (flow_id) WHERE (state = ANY (ARRAY['deferred'::public.delivery_state, 'in_doubt'::public.delivery_state]));

ALTER INDEX public.ended_pkey ATTACH PARTITION public.ended_rest_pkey;

ALTER INDEX public.event_delivery ATTACH PARTITION public.event_rest_delivery_id_idx;

ALTER TABLE ONLY public.api_key
    ADD CONSTRAINT api_key_site_id_fkey FOREIGN KEY (site_id) REFERENCES public.site(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.broadcast
    ADD CONSTRAINT broadcast_domain_id_fkey FOREIGN KEY (domain_id) REFERENCES public.domain(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.broadcast
    ADD CONSTRAINT broadcast_list_id_fkey FOREIGN KEY (list_id) REFERENCES public.list(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.broadcast
    ADD CONSTRAINT broadcast_site_id_fkey FOREIGN KEY (site_id) REFERENCES public.site(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.broadcast
    ADD CONSTRAINT broadcast_template_id_fkey FOREIGN KEY (template_id) REFERENCES public.template(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.contact
    ADD CONSTRAINT contact_site_id_fkey FOREIGN KEY (site_id) REFERENCES public.site(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.domain_key
    ADD CONSTRAINT domain_key_domain_id_fkey FOREIGN KEY (domain_id) REFERENCES public.domain(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.domain_lane
    ADD CONSTRAINT domain_lane_lane_id_fkey FOREIGN KEY (lane_id) REFERENCES public.lane(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.domain
    ADD CONSTRAINT domain_site_id_fkey FOREIGN KEY (site_id) REFERENCES public.site(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.import_error
    ADD CONSTRAINT import_error_import_id_fkey FOREIGN KEY (import_id) REFERENCES public.import(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.import
    ADD CONSTRAINT import_list_id_fkey FOREIGN KEY (list_id) REFERENCES public.list(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.import
    ADD CONSTRAINT import_site_id_fkey FOREIGN KEY (site_id) REFERENCES public.site(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.lane_override
    ADD CONSTRAINT lane_override_lane_id_fkey FOREIGN KEY (lane_id) REFERENCES public.lane(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.list_member
    ADD CONSTRAINT list_member_contact_id_fkey FOREIGN KEY (contact_id) REFERENCES public.contact(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.list_member
    ADD CONSTRAINT list_member_list_id_fkey FOREIGN KEY (list_id) REFERENCES public.list(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.list
    ADD CONSTRAINT list_site_id_fkey FOREIGN KEY (site_id) REFERENCES public.site(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.template
    ADD CONSTRAINT template_site_id_fkey FOREIGN KEY (site_id) REFERENCES public.site(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.trace_line
    ADD CONSTRAINT trace_line_request_id_fkey FOREIGN KEY (request_id) REFERENCES public.trace_request(id) ON DELETE CASCADE;

ALTER TABLE public.acceptance ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.api_key ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.broadcast ENABLE ROW LEVEL SECURITY;

CREATE POLICY by_site ON public.acceptance TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.api_key TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.broadcast TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.contact TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.domain TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.domain_key TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.ended TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.event TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.idempotency TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.import TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.import_error TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.list TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.list_member TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.message TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.queue TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.site TO gateway_api USING (((id = public.current_site()) OR public.is_operator())) WITH CHECK (public.is_operator());

CREATE POLICY by_site ON public.suppression TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.tally TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

CREATE POLICY by_site ON public.template TO gateway_api USING (((site_id = public.current_site()) OR public.is_operator())) WITH CHECK (((site_id = public.current_site()) OR public.is_operator()));

ALTER TABLE public.contact ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.domain ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.domain_key ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.ended ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.event ENABLE ROW LEVEL SECURITY;

CREATE POLICY every_site ON public.acceptance TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.api_key TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.broadcast TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.contact TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.domain TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.domain_key TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.ended TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.event TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.idempotency TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.import TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.import_error TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.list TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.list_member TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.message TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.queue TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.site TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.suppression TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.tally TO gateway_dispatch USING (true) WITH CHECK (true);

CREATE POLICY every_site ON public.template TO gateway_dispatch USING (true) WITH CHECK (true);

ALTER TABLE public.idempotency ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.import ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.import_error ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.list ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.list_member ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.message ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.queue ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.site ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.suppression ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.tally ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.template ENABLE ROW LEVEL SECURITY;

GRANT USAGE ON SCHEMA public TO gateway_api;
GRANT USAGE ON SCHEMA public TO gateway_dispatch;
GRANT ALL ON SCHEMA public TO gateway_maintain;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.acceptance TO gateway_dispatch;
GRANT SELECT,INSERT ON TABLE public.acceptance TO gateway_api;

GRANT ALL ON SEQUENCE public.acceptance_id TO gateway_api;
GRANT ALL ON SEQUENCE public.acceptance_id TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.api_key TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.api_key TO gateway_api;

GRANT ALL ON SEQUENCE public.api_key_id_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.api_key_id_seq TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.broadcast TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.broadcast TO gateway_api;

GRANT ALL ON SEQUENCE public.broadcast_id_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.broadcast_id_seq TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.contact TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.contact TO gateway_api;

GRANT ALL ON SEQUENCE public.contact_id_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.contact_id_seq TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.database_identity TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.domain TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.domain TO gateway_api;

GRANT ALL ON SEQUENCE public.domain_id_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.domain_id_seq TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.domain_key TO gateway_api;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.domain_key TO gateway_dispatch;

GRANT ALL ON SEQUENCE public.domain_key_id_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.domain_key_id_seq TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.domain_lane TO gateway_dispatch;
GRANT SELECT ON TABLE public.domain_lane TO gateway_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.ended TO gateway_dispatch;
GRANT SELECT,INSERT ON TABLE public.ended TO gateway_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.ended_rest TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.event TO gateway_dispatch;
GRANT SELECT,INSERT ON TABLE public.event TO gateway_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.event_rest TO gateway_dispatch;

GRANT ALL ON SEQUENCE public.fleet_tick TO gateway_api;
GRANT ALL ON SEQUENCE public.fleet_tick TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.flow TO gateway_dispatch;

GRANT ALL ON SEQUENCE public.flow_id_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.flow_id_seq TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.hold TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.hold TO gateway_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.idempotency TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.idempotency TO gateway_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.import TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.import TO gateway_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.import_error TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.import_error TO gateway_api;

GRANT ALL ON SEQUENCE public.import_id_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.import_id_seq TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.incarnation TO gateway_dispatch;
GRANT SELECT ON TABLE public.incarnation TO gateway_api;

GRANT ALL ON SEQUENCE public.incarnation_id_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.incarnation_id_seq TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.lane TO gateway_dispatch;
GRANT SELECT ON TABLE public.lane TO gateway_api;

GRANT ALL ON SEQUENCE public.lane_id_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.lane_id_seq TO gateway_dispatch;

GRANT SELECT ON TABLE public.lane_override TO gateway_api;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.lane_override TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.lane_state TO gateway_dispatch;
GRANT SELECT ON TABLE public.lane_state TO gateway_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.list TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.list TO gateway_api;

GRANT ALL ON SEQUENCE public.list_id_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.list_id_seq TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.list_member TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.list_member TO gateway_api;

GRANT ALL ON SEQUENCE public.list_member_seq_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.list_member_seq_seq TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.message TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.message TO gateway_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.queue TO gateway_dispatch;
GRANT SELECT,INSERT ON TABLE public.queue TO gateway_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.site TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.site TO gateway_api;

GRANT ALL ON SEQUENCE public.site_id_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.site_id_seq TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.suppression TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.suppression TO gateway_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.tally TO gateway_dispatch;
GRANT SELECT ON TABLE public.tally TO gateway_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.template TO gateway_dispatch;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.template TO gateway_api;

GRANT ALL ON SEQUENCE public.template_id_seq TO gateway_api;
GRANT ALL ON SEQUENCE public.template_id_seq TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.trace_line TO gateway_dispatch;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.trace_request TO gateway_dispatch;
