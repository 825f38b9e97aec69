-- Queries of gateway/store/traces.py. The number of the advisory lock is "traces" in ASCII.

-- name: lane_of_domain
-- The lane that takes mail for domain $1.
select lane_id::bigint from domain_lane where domain = $1;

-- name: message_exists
-- Whether there is message $1.
select exists (select from message where id = $1);

-- name: delivery_state
-- The state of delivery $1; nothing when there is none.
select q.state::text from queue q where q.id = $1
union all
select e.state::text from acceptance a join ended e on e.id = $1 and e.accepted_at = a.accepted_at where a.id = $1::bigint >> 10;

-- name: asking
-- One asks at a time, so that the number of open requests is what was counted.
select pg_advisory_xact_lock(128034608997747);

-- name: ask
-- Ask for a transcript of $1 (kind) $2 for $3 seconds and $4 lines; nothing when $5 requests are open.
insert into trace_request (kind, ref, until_at, lines_left, asked_at)
select $1, $2, n.at + make_interval(secs => $3), $4, n.at from (select clock_timestamp() as at) n
 where (select count(*) from trace_request r where r.until_at > clock_timestamp() and r.lines_left > 0) < $5
returning id, asked_at;

-- name: end_request
-- Nothing more is wanted.
update trace_request set until_at = clock_timestamp() where id = $1 and until_at > clock_timestamp();

-- name: open_requests
-- What is to be seen now; read with each heartbeat.
select id, kind, ref, extract(epoch from until_at - clock_timestamp())::double precision as left_s, lines_left
  from trace_request where until_at > clock_timestamp() and lines_left > 0 order by id limit $1;

-- name: write
-- Keep lines, as many as their requests still take. Requests are locked in the order of their ids, or two dispatchers would deadlock.
with said as (
    select s.*, row_number() over (partition by s.request_id order by s.place) as n
      from unnest($1::bigint[], $2::timestamptz[], $3::integer[], $4::bigint[], $5::text[], $6::text[]) with ordinality
        as s(request_id, at, connection, delivery_id, direction, line, place)
), open as (
    select r.id, r.lines_left from trace_request r where r.id = any ($1::bigint[]) order by r.id for update
), kept as (
    insert into trace_line (request_id, at, incarnation, connection, delivery_id, direction, line)
    select s.request_id, s.at, $7, s.connection, s.delivery_id, s.direction, s.line from said s join open o on o.id = s.request_id
     where s.n <= o.lines_left order by s.place
    returning request_id
)
update trace_request r set lines_left = r.lines_left - k.n from (select request_id, count(*) as n from kept group by 1) k where r.id = k.request_id;

-- name: lines
-- Lines of request $1 that were not read before: those above the last id ($3) that was read of each incarnation ($2). One
-- incarnation's are committed in the order of their ids; another's may come late, below what was read already.
select l.id, l.at, l.incarnation, l.connection, l.delivery_id, l.direction, l.line
  from trace_line l left join unnest($2::integer[], $3::bigint[]) seen(incarnation, id) on seen.incarnation = l.incarnation
 where l.request_id = $1 and l.id > coalesce(seen.id, 0) order by l.at, l.id;

-- name: remaining
-- How long request $1 lasts yet, and how many more lines it takes; nothing when it was removed.
select extract(epoch from until_at - clock_timestamp())::double precision as left_s, lines_left from trace_request where id = $1;

-- name: reap_requests
-- Remove requests that ended an hour ago, with their lines; gives how many.
with gone as (delete from trace_request where until_at < clock_timestamp() - interval '1 hour' returning 1)
select count(*) from gone;

-- name: dispatchers
-- How many dispatchers live by their own word, the fleet's tick, and when the last one began or ended.
select count(*) filter (where status = 'live') as live, (select last_value from fleet_tick) as tick, max(greatest(started_at, ended_at)) as last_at
  from incarnation;
