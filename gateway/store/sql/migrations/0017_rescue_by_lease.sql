-- What a journal says of a delivery it says of one lease. A dot without a reply stays in its segment after the delivery was told in doubt,
-- and where the same dispatcher had leased it again and not begun it, its death put it in doubt once more: for bulk mail, for good.

-- As the one of seven arguments, which stays for dispatchers of the release before; the journal's word counts for the epoch it names.
create function rescue(
    p_dead integer, p_journal boolean, p_in_doubt bigint[], p_in_doubt_epochs integer[], p_started bigint[], p_started_epochs integer[],
    p_transactional_wait_s double precision, p_bulk_wait_s double precision, p_quarantine_after integer)
returns table (state text, n bigint) language plpgsql
set enable_seqscan = off
as $$
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
alter function rescue(integer, boolean, bigint[], integer[], bigint[], integer[], double precision, double precision, integer) owner to gateway_maintain;
