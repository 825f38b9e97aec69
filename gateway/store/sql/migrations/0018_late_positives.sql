-- A 250 that comes late also counts for what was cancelled or has expired since, if it had been in doubt: then the receiver has it. The
-- record becomes `delivered`, with what was said, and the tally moves from the state that it had. Else as in 0007.

-- Acknowledge a batch of attempts. outcome: delivered, bounced, expired, suppressed, cancelled (ends), deferred, in_doubt (waits).
-- A delivered of an older epoch still ends an open row: a known 250 is never thrown away. All else needs the lease.
-- p_counts: whether the attempt counts (a reply that concerns the lane does not). Gives how many rows took effect.
create or replace function acknowledge(
    p_owner integer, p_ids bigint[], p_epochs integer[], p_outcomes delivery_state[], p_counts boolean[], p_waits double precision[],
    p_codes smallint[], p_enhanced text[], p_replies text[], p_classes text[], p_suppress text[])
returns integer language plpgsql
-- No nested loops: told against found is 400 rows by 400, and the planner takes arrays for short (80,000 comparisons a batch).
set enable_seqscan = off set enable_bitmapscan = off set enable_nestloop = off set jit = off set plan_cache_mode = force_generic_plan
as $$
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
