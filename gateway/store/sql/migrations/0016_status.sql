-- What became of a message, why it waits, and what its sender may do about it while it does.

-- About the first message of a site that was created at p_at or later. Ids are numbers in order, taken some seconds at most before the
-- time that is written beside them, so this is a search by halves over (site_id, id): 0.2 ms whatever the number of messages, and no
-- index on times, which every submission would pay for. The caller allows for those seconds, and compares the times it finds.
create function message_at(p_site integer, p_at timestamptz) returns bigint language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off as $$
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

-- How many deliveries stand before a place in each of some flows (at most p_most are counted), and how many flows of that priority, or a
-- more urgent one, are served beside it in its lane. An app may ask for its own site's flows; it learns numbers, never whose they are.
create function flow_turns(p_flows bigint[], p_seqs bigint[], p_most integer) returns table (flow_id bigint, ahead integer, sharing integer)
language sql stable security definer set search_path = public set enable_seqscan = off set enable_bitmapscan = off as $$
    select f.id,
           (select count(*) from (select from queue q where q.flow_id = f.id and q.state = 'queued' and q.seq >= f.floor and q.seq < w.seq
                                   order by q.seq limit p_most) x)::integer,
           (select count(*) from (select from flow o where o.lane_id = f.lane_id and o.active and o.priority <= f.priority limit p_most) y)::integer
      from unnest(p_flows, p_seqs) w(id, seq) join flow f on f.id = w.id
     where current_setting('role') <> 'gateway_api' or f.site_id = current_site() or is_operator()
$$;

-- The deliveries of a message that are in one of these states, locked: for the three functions below, which may do what an app may not.
-- A claim that is just taking one is waited for; then it is leased, and no longer here. A broadcast's are left to its own actions.
create function lock_deliveries(p_message bigint, p_states delivery_state[]) returns bigint[] language plpgsql
set enable_seqscan = off as $$
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

-- End what has not been begun, and what waits for another try. What a dispatcher has, or what is in doubt, may be with the receiver.
create function cancel_message(p_message bigint) returns integer language plpgsql security definer
set search_path = public set lock_timeout = '500ms' as $$
begin
    return end_deliveries(lock_deliveries(p_message, '{queued,deferred,held}'), 'cancelled', pg_backend_pid(), '{queued,deferred,held}',
                          'cancelled by its sender');
end $$;

-- Hold what waits: no claim, promotion or try touches it; only its expiry does.
create function hold_message(p_message bigint) returns integer language plpgsql security definer
set search_path = public set enable_seqscan = off set lock_timeout = '500ms' as $$
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

-- Let it go on where it stood: to its flow, or to its next try where that is not due. Rows before lanes, as everywhere.
create function release_message(p_message bigint) returns integer language plpgsql security definer
set search_path = public set enable_seqscan = off set lock_timeout = '500ms' as $$
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

alter function message_at(integer, timestamptz) owner to gateway_maintain;
alter function flow_turns(bigint[], bigint[], integer) owner to gateway_maintain;
alter function lock_deliveries(bigint, delivery_state[]) owner to gateway_maintain;
alter function cancel_message(bigint) owner to gateway_maintain;
alter function hold_message(bigint) owner to gateway_maintain;
alter function release_message(bigint) owner to gateway_maintain;
