-- How deliveries leave the queue.

-- Move rows into the books as ended. The one door out of the queue: every ended record and its tally are made here.
create function end_deliveries(
    p_ids bigint[], p_state delivery_state, p_shard integer, p_from delivery_state[], p_reason text) returns integer
language plpgsql set enable_seqscan = off set enable_bitmapscan = off as $$
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

-- Put addresses that have just bounced on their sites' lists, and take them out of the lists of contacts.
create function suppress_bounced(p_ids bigint[], p_suppress text[], p_replies text[], p_dead bigint[], p_sites integer[], p_keys text[])
returns void language sql set enable_seqscan = off set enable_nestloop = on as $$
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

-- Acknowledge a batch of attempts. outcome: delivered, bounced, expired, suppressed, cancelled (ends), deferred, in_doubt (waits).
-- A delivered of an older epoch still ends an open row: a known 250 is never thrown away. All else needs the lease.
-- p_counts: whether the attempt counts (a reply that concerns the lane does not). Gives how many rows took effect.
create function acknowledge(
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

    -- A 250 for what had been given up as unresolved, or handed to another: rare, and still the truth.
    if v_ended < (select count(*) from unnest(p_outcomes) o where o >= 'delivered') and 'delivered' = any (p_outcomes) then
        with r as (select r.id, r.code, r.enhanced, r.reply from unnest(p_ids, p_outcomes, p_codes, p_enhanced, p_replies) r(id, outcome, code, enhanced, reply)
                    where r.outcome = 'delivered'
        ), late as (
            update ended e set state = 'delivered', code = r.code, enhanced = r.enhanced, reply = r.reply from r
             where e.id = any (p_ids) and e.id = r.id and e.state = 'unresolved'
            returning e.site_id, e.broadcast_id
        ), moved as (
            insert into tally as t (broadcast_id, site_id, state, shard, n)
            select l.broadcast_id, l.site_id, s.state, p_owner % 64, sum(s.by) from late l,
                   (values ('delivered'::delivery_state, 1), ('unresolved'::delivery_state, -1)) s(state, by)
             group by 1, 2, 3 order by 1, 2, 3
            on conflict (broadcast_id, site_id, state, shard) do update set n = t.n + excluded.n
        )
        select count(*) into v_late from late;
    end if;
    return v_ended + v_kept + v_late;
end $$;

-- Take over what a dead incarnation held. With its journal: p_in_doubt had a final dot without a reply; p_started had
-- begun and shown nothing more (they are suspects: tried alone, quarantined after p_quarantine_after deaths); the rest
-- goes back at once. Without its journal (p_journal false) everything it held is in doubt. Gives counts by new state.
create function rescue(
    p_dead integer, p_journal boolean, p_in_doubt bigint[], p_started bigint[], p_transactional_wait_s double precision,
    p_bulk_wait_s double precision, p_quarantine_after integer)
returns table (state text, n bigint) language plpgsql
set enable_seqscan = off
as $$
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
