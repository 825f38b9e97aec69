-- What is kept for how long: contents are erased some time after their messages have ended, days of events are dropped.
-- phase: expand

-- When a message's content was erased; null: it was not.
alter table message add column erased_at timestamptz;

-- How far the look for contents that are due has come, by stream. Messages are looked at once, in the order of their ids, so that the hot
-- table needs no index for it …
create table retention_cursor (
    stream     stream primary key,
    message_id bigint not null default 0
);
insert into retention_cursor (stream) values ('transactional'), ('marketing');

-- … and those that had not ended by then are looked at again: there are few.
create table retention_waiting (
    message_id bigint primary key,
    since      timestamptz not null default now()
);

alter table retention_cursor owner to gateway_maintain;
alter table retention_waiting owner to gateway_maintain;
grant select, insert, update, delete on retention_cursor, retention_waiting to gateway_dispatch;

-- Erase the contents of some messages. What says that they were sent, to whom and what became of them stays, and with it the books.
-- Gives how many had one.
create function erase_contents(p_messages bigint[]) returns integer language plpgsql
set enable_seqscan = off as $$
declare v_count integer;
begin
    update message m set subject = '', html = '', text = '', headers = '{}', reply_to = '', attachments = null, erased_at = clock_timestamp()
     where m.id = any (p_messages) and m.erased_at is null;
    get diagnostics v_count = row_count;
    delete from retention_waiting w where w.message_id = any (p_messages);
    return v_count;
end $$;

-- Which of some messages have ended: nothing of them is open, and no broadcast makes more of them.
create function ended_messages(p_messages bigint[]) returns bigint[] language sql stable
set enable_seqscan = off as $$
    select coalesce(array_agg(m.id), '{}') from unnest(p_messages) m(id)
     where not exists (select from acceptance a join lateral (
                           select from queue q where q.id between a.id * 1024 and a.id * 1024 + a.deliveries - 1 limit 1) q on true
                        where a.message_id = m.id)
       and not exists (select from broadcast b where b.message_id = m.id and b.ended_at is null)
$$;

-- Erase what is due of a stream: contents of messages that were created before p_before and have ended. At most p_limit messages are looked
-- at, and as many of those that wait. Gives (looked at, erased); one call at a time, another gives (0, 0).
create function erase_due(p_stream stream, p_before timestamptz, p_limit integer, out looked integer, out erased integer)
language plpgsql set enable_seqscan = off as $$
declare v_cursor bigint; v_next bigint; v_due bigint[]; v_waiting bigint[]; v_done bigint[];
begin
    looked := 0; erased := 0;
    select c.message_id into v_cursor from retention_cursor c where c.stream = p_stream for update skip locked;
    if not found then return; end if;
    -- Ids and times are in the same order but for some seconds: the first one that is too young ends the look.
    select count(*), max(n.id), coalesce(array_agg(n.id) filter (where n.stream = p_stream and n.erased_at is null), '{}')
      into looked, v_next, v_due
      from (select x.*, bool_and(x.created_at < p_before) over (order by x.id) as is_old
              from (select m.id, m.stream, m.created_at, m.erased_at from message m where m.id > v_cursor order by m.id limit p_limit) x) n
     where n.is_old;
    if looked > 0 then
        v_done := ended_messages(v_due);
        insert into retention_waiting (message_id)
        select d from unnest(v_due) d where d <> all (v_done) on conflict do nothing;
        erased := erase_contents(v_done);
        update retention_cursor c set message_id = v_next where c.stream = p_stream;
    end if;
    select coalesce(array_agg(w.message_id), '{}') into v_waiting from (
        select w.message_id, w.since from retention_waiting w join message m on m.id = w.message_id
         where m.stream = p_stream and m.created_at < p_before order by w.since limit p_limit) w;
    if v_waiting <> '{}' then
        v_done := ended_messages(v_waiting);
        erased := erased + erase_contents(v_done);
        -- Who waits on goes to the end, so that all get their turn.
        update retention_waiting w set since = clock_timestamp() where w.message_id = any (v_waiting) and w.message_id <> all (v_done);
    end if;
end $$;

-- Erase one message at once, for its site: its content, its recipients, and the replies about them. Gives whether there is such a
-- message of that site; raises object_in_use while deliveries of it are open: they need it, and for a broadcast's, which has too many.
create function erase_message(p_site integer, p_message bigint) returns boolean language plpgsql security definer
set search_path = public set enable_seqscan = off as $$
declare v_first bigint; v_last bigint; v_accepted timestamptz;
begin
    if current_setting('role') = 'gateway_api' and p_site is distinct from current_site() and not is_operator() then
        raise insufficient_privilege using message = format('site %s is not this transaction''s', p_site);
    end if;
    perform 1 from message m where m.id = p_message and m.site_id = p_site for update;
    if not found then return false; end if;
    if exists (select from acceptance a where a.message_id = p_message and a.broadcast_id <> 0) then
        raise object_in_use using message = 'this is the message of a broadcast: its content goes when it is due, its recipients one by one';
    end if;
    if p_message <> all (ended_messages(array[p_message])) then
        raise object_in_use using message = 'deliveries of this message are open: cancel them first, or wait for their end';
    end if;
    perform erase_contents(array[p_message]);
    for v_first, v_last, v_accepted in
        select a.id * 1024, a.id * 1024 + a.deliveries - 1, a.accepted_at from acceptance a where a.message_id = p_message
    loop
        update ended e set recipient = '', reply = null
         where e.id between v_first and v_last and e.accepted_at = v_accepted and (e.recipient <> '' or e.reply is not null);
        update event e set reply = null
         where e.delivery_id between v_first and v_last and e.at >= v_accepted - interval '1 hour' and e.reply is not null;
    end loop;
    return true;
end $$;

-- Who is to be forgotten: an address (in lower case) of a site. Role schedule walks what the site has sent, a part at a time, up to the
-- number that the last message had; in the end the address itself goes, and numbers stay.
create table erasure (
    id            bigint generated always as identity primary key,
    site_id       integer not null references site on delete cascade,
    address       text not null,
    message_id    bigint not null default 0, -- how far the walk has come: a message and one of its acceptances
    acceptance_id bigint not null default 0,
    until_id      bigint not null,
    waiting       bigint[] not null default '{}', -- deliveries that the walk found open, and that could not be cancelled
    deliveries    integer not null default 0,
    created_at    timestamptz not null default now(),
    due_at        timestamptz not null default now(),
    ended_at      timestamptz,
    check ((address = '') = (ended_at is not null))
);
create index erasure_site on erasure (site_id, id);
create index erasure_open on erasure (due_at) where ended_at is null;
alter table erasure enable row level security;
create policy by_site on erasure to gateway_api using (site_id = current_site() or is_operator())
    with check (site_id = current_site() or is_operator());
create policy every_site on erasure to gateway_dispatch using (true) with check (true);
alter table erasure owner to gateway_maintain;
grant select, insert on erasure to gateway_api;
grant select, insert, update, delete on erasure to gateway_dispatch;

-- The acceptances of a site behind (p_message, p_acceptance), in the order of messages and acceptances, as many as hold p_deliveries together;
-- of messages up to p_until. Compared as pairs: with site_id = p_site the primary key would do too, and the messages of all other sites be
-- walked.
create function site_acceptances(p_site integer, p_message bigint, p_acceptance bigint, p_until bigint, p_deliveries integer)
returns table (message_id bigint, id bigint, deliveries smallint, accepted_at timestamptz, broadcast_id bigint)
language sql stable set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
    select x.message_id, x.id, x.deliveries, x.accepted_at, x.broadcast_id from (
        select n.*, sum(n.deliveries) over (order by n.message_id, n.id) - n.deliveries as before from (
            select m.id as message_id, a.id, a.deliveries, a.accepted_at, a.broadcast_id
              from message m join acceptance a on a.message_id = m.id
             where (m.site_id, m.id) >= (p_site, p_message) and (m.site_id, m.id) <= (p_site, p_until)
               and (m.id > p_message or a.id > p_acceptance)
             order by m.site_id, m.id, a.id limit p_deliveries) n) x
     where x.before < p_deliveries
$$;

-- Forget who some deliveries that have ended went to: all are of one site, and of one recipient. The replies that name it go, and contents of
-- messages that went to nobody else. Gives how many there were.
create function forget_recipient(p_ids bigint[]) returns integer language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare v_ids bigint[]; v_messages bigint[]; v_since timestamptz;
begin
    with gone as (
        update ended e set recipient = '', reply = null from unnest(p_ids) d(id) join acceptance a on a.id = d.id / 1024
         where e.id = d.id and e.accepted_at = a.accepted_at
        returning e.id, e.message_id, e.broadcast_id, e.accepted_at)
    select array_agg(g.id), array_agg(distinct g.message_id) filter (where g.broadcast_id = 0), min(g.accepted_at)
      into v_ids, v_messages, v_since from gone g;
    if v_ids is null then return 0; end if;
    update event e set reply = null
     where e.delivery_id = any (v_ids) and e.at >= v_since - interval '1 hour' and e.reply is not null;
    if v_messages is not null then
        perform erase_contents(array(
            select m.id from unnest(ended_messages(v_messages)) m(id)
             where not exists (select from acceptance a join ended e on e.id between a.id * 1024 and a.id * 1024 + a.deliveries - 1
                                                       and e.accepted_at = a.accepted_at
                                where a.message_id = m.id and e.recipient <> '')));
    end if;
    return cardinality(v_ids);
end $$;

-- Do a part of an erasure that is due: p_deliveries of its site are looked at. What was accepted before it was asked for and has not been begun
-- is cancelled; what cannot be (a dispatcher has it, or the receiver may), or came since, is forgotten when it has ended, and looked for
-- again after p_pause_s. Gives the erasure, the deliveries forgotten, and whether that was the last part; nulls when none is due.
create function erase_step(p_deliveries integer, p_pause_s double precision, out erasure bigint, out forgotten integer, out is_last boolean)
language plpgsql set lock_timeout = '500ms' set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off as $$
declare v_job erasure; v_message bigint; v_acceptance bigint; v_looked bigint[]; v_open bigint[]; v_ids bigint[];
begin
    select * into v_job from erasure e where e.ended_at is null and e.due_at <= clock_timestamp()
     order by e.due_at limit 1 for update skip locked;
    if not found then return; end if;
    erasure := v_job.id;
    select array_agg(s.id order by s.message_id, s.id), (array_agg(s.message_id order by s.message_id desc, s.id desc))[1],
           (array_agg(s.id order by s.message_id desc, s.id desc))[1]
      into v_looked, v_message, v_acceptance
      from site_acceptances(v_job.site_id, v_job.message_id, v_job.acceptance_id, v_job.until_id, p_deliveries) s;
    if v_looked is null then v_looked := '{}'; end if;
    -- Locked in the order of their ids: a claim that is taking one is waited for.
    v_ids := array(
        select q.id from unnest(v_looked) l(id) join acceptance a on a.id = l.id cross join lateral (
            select q.id, q.recipient, q.state from queue q where q.id between a.id * 1024 and a.id * 1024 + a.deliveries - 1) q
         where lower(q.recipient) = v_job.address and q.state in ('queued', 'deferred', 'held') and a.accepted_at <= v_job.created_at);
    perform 1 from queue q where q.id = any (v_ids) order by q.id for update;
    perform end_deliveries(v_ids, 'cancelled', pg_backend_pid(), '{queued,deferred,held}', 'its recipient was erased');
    v_open := array(
        select q.id from unnest(v_looked) l(id) join acceptance a on a.id = l.id cross join lateral (
            select q.id, q.recipient from queue q where q.id between a.id * 1024 and a.id * 1024 + a.deliveries - 1) q
         where lower(q.recipient) = v_job.address
        union all
        select q.id from queue q where q.id = any (v_job.waiting));
    v_ids := array(
        select e.id from unnest(v_looked) l(id) join acceptance a on a.id = l.id cross join lateral (
            select e.id, e.recipient from ended e
             where e.id between a.id * 1024 and a.id * 1024 + a.deliveries - 1 and e.accepted_at = a.accepted_at) e
         where lower(e.recipient) = v_job.address
        union all
        select w.id from unnest(v_job.waiting) w(id) where w.id <> all (v_open));
    forgotten := forget_recipient(v_ids);
    is_last := v_looked = '{}' and v_open = '{}';
    update erasure e set message_id = coalesce(v_message, e.message_id), acceptance_id = coalesce(v_acceptance, e.acceptance_id),
           waiting = v_open, deliveries = e.deliveries + forgotten,
           due_at = clock_timestamp() + case when v_looked = '{}' then make_interval(secs => p_pause_s) else interval '0' end,
           address = case when is_last then '' else e.address end, ended_at = case when is_last then clock_timestamp() end
     where e.id = v_job.id;
end $$;

-- As in 0005, but: it waits for nobody for long, since everybody who ends a delivery waits behind it (a backup may hold the tables for an hour;
-- the days are made a week ahead, so the next call does it); and a day whose rows lie in the rest already, because nobody made it in
-- time, stays there, in place of an error that kept the days after it from being made.
create or replace function make_partitions(p_days_ahead integer default 3) returns integer language plpgsql
set lock_timeout = '200ms' as $$
declare
    parent text; day date; made integer := 0;
begin
    foreach parent in array array['ended', 'event'] loop
        for day in select generate_series(current_date, current_date + p_days_ahead, interval '1 day')::date loop
            if to_regclass(format('%I', parent || to_char(day, '_YYYYMMDD'))) is null then
                begin
                    execute format('create table %I partition of %I for values from (%L) to (%L)',
                        parent || to_char(day, '_YYYYMMDD'), parent, day::timestamptz, (day + 1)::timestamptz);
                    made := made + 1;
                exception
                    when check_violation then null;
                    when lock_not_available then return made;
                end;
            end if;
        end loop;
    end loop;
    return made;
end $$;

-- Drop the oldest day of events if it ended before p_before; when there is none, delete p_limit of those that lie in no day of their own. Gives
-- (days, rows); call again until both are 0. One day a transaction, and nothing else in it: who writes an event waits for us meanwhile.
create function drop_event_day(p_before timestamptz, p_limit integer, out days integer, out rows integer) language plpgsql
set lock_timeout = '200ms' as $$
declare v_name text;
begin
    days := 0; rows := 0;
    select c.relname into v_name from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'event'::regclass and c.relname ~ '^event_\d{8}$'
       and (to_date(right(c.relname, 8), 'YYYYMMDD') + 1)::timestamptz <= p_before order by 1 limit 1;
    if v_name is not null then
        execute format('drop table %I', v_name);
        days := 1;
    else
        delete from event_rest e where e.ctid = any (array(select r.ctid from event_rest r where r.at < p_before limit p_limit));
        get diagnostics rows = row_count;
    end if;
end $$;

alter function erase_contents(bigint[]) owner to gateway_maintain;
alter function ended_messages(bigint[]) owner to gateway_maintain;
alter function erase_due(stream, timestamptz, integer) owner to gateway_maintain;
alter function erase_message(integer, bigint) owner to gateway_maintain;
alter function site_acceptances(integer, bigint, bigint, bigint, integer) owner to gateway_maintain;
alter function forget_recipient(bigint[]) owner to gateway_maintain;
alter function erase_step(integer, double precision) owner to gateway_maintain;
alter function drop_event_day(timestamptz, integer) owner to gateway_maintain;
