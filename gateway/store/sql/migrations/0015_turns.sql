-- A grant's turn ends with a gap. Deliveries are planned a little closer than the lane is paced on the average, so the last of a turn
-- may be late by the gap (1.2 ms of 100) before they come upon the next grant's, which another dispatcher has. And tokens of a full
-- bucket are kept for half as long as they last: two grants that were both used late put the whole bucket twice into a window.

-- And a flow that is alone in its lane is not written by every claim.

-- Spend tokens and take deliveries. Two statements on purpose: the second has a fresh snapshot, so a row whose insert
-- committed while the lanes were being locked is seen; with one statement 3 of 272,000 rows were stranded.
--   p_alive        incarnations whose slots count
--   p_total        rows at most;  p_credit  rows a lane at most, where p_busy/p_busy_credit name no other figure
--   p_slots        connections wanted in a lane
--   p_since        no ready lane stands before this ready_at (dead index entries do); from ready_floor()
-- Gives rows in the order of leaving; one row with a null id for a lane that had no connection slot free.
--   leave_at       not before;  turn_ends  half the time that a full bucket lasts, after the last one's plan: past it the next grants begin
--   peak_per_s     how closely what is late may follow what is late
--   more           whether the lane has more waiting than was taken: somebody will use those tokens
drop function claim(integer, integer[], integer, integer, integer, integer[], integer[], boolean, timestamptz, integer);
create function claim(
    p_owner integer, p_alive integer[], p_total integer, p_credit integer, p_slots integer,
    p_busy integer[], p_busy_credit integer[], p_urgent_only boolean, p_since timestamptz, p_lanes integer)
returns table (
    id bigint, epoch integer, lane_id integer, flow_id bigint, site_id integer, message_id bigint, broadcast_id bigint,
    priority smallint, attempts smallint, crashes smallint, doubts smallint, recipient text, variables text,
    accepted_at timestamptz, expires_at timestamptz, suppressed boolean,
    leave_at double precision, turn_ends double precision, claimed_at double precision, more boolean, peak_per_s double precision,
    burst double precision, slots integer)
language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan
as $$
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
alter function claim(integer, integer[], integer, integer, integer, integer[], integer[], boolean, timestamptz, integer) owner to gateway_maintain;
