-- name: claim
-- Spend tokens and lease deliveries, in the order of leaving; a row with a null id names a lane without a free slot.
select id, epoch, lane_id, site_id, message_id, broadcast_id, priority, attempts, crashes, doubts, recipient, variables,
       accepted_at, expires_at, suppressed, leave_at, turn_ends, claimed_at, more, peak_per_s, burst, slots
  from claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: ready_floor
-- Below this ready_at no ready lane stands: what the next claims of this second may start from; and the server's clock.
select ready_floor() as floor, extract(epoch from clock_timestamp())::double precision as clock;

-- name: acknowledge
-- Take the outcomes of a batch of attempts; gives how many rows took effect.
select acknowledge($1, $2, $3, $4::text[]::delivery_state[], $5, $6, $7, $8, $9, $10, $11);

-- name: release
-- Hand leased deliveries back untouched; gives how many.
select release($1, $2, $3);

-- name: release_unknown
-- Hand back whatever this incarnation holds but does not know of (the answer of a claim was lost).
select release_unknown($1, $2);

-- name: release_slots
-- Give up the connection slots of this incarnation in some lanes.
select release_slots($1, $2);

-- name: suspend_lanes
-- Let whole lanes wait, each for some seconds, with the reason.
select suspend_lanes($1, $2, $3);

-- name: wake
-- Wake flows after the commit that gave them rows.
select wake($1, $2);

-- name: holds
-- What is held now: kind and reference.
select kind, ref, why from hold where until_at is null or until_at > clock_timestamp();

-- name: promote
-- Wake what is due, end what expired while it waited.
select promoted, expired, unresolved from promote($1, $2);

-- name: expire_ready
-- End what expired while it was ready or held.
select expire_ready($1, $2);

-- name: sweep
-- Find flows with ready rows that nobody would look at.
select sweep();

-- name: reap
-- Remove flows and lanes idle for long.
select reap($1, $2, $3);

-- name: make_partitions
-- Make the partitions of the days ahead.
select make_partitions($1);

-- name: lane_limits
-- The limits that lanes have now, and those that an operator gave them for a time.
select l.id, l.name, s.rate_per_s, s.burst, s.max_connections, o.rate_per_s as own_rate, o.burst as own_burst, o.max_connections as own_connections
  from lane l join lane_state s on s.lane_id = l.id
  left join lane_override o on o.lane_id = l.id and o.until_at > clock_timestamp()
 where l.id > $1 order by l.id limit $2;

-- name: set_lane_limits
-- Give lanes new limits, or where an operator gave them others for a time, those: what they owe is rescaled to the new rate, and they wake
-- to it.
update lane_state s set rate_per_s = n.rate, burst = n.burst, max_connections = n.connections,
       tat = case when s.tat > clock_timestamp() then clock_timestamp() + (s.tat - clock_timestamp()) * (s.rate_per_s / n.rate) else s.tat end,
       token_at = '-infinity'
  from (select u.lane_id, coalesce(o.rate_per_s, u.rate) as rate, coalesce(o.burst, u.burst) as burst,
               coalesce(o.max_connections, u.connections) as connections
          from unnest($1::integer[], $2::float8[], $3::float8[], $4::integer[]) u(lane_id, rate, burst, connections)
          left join lane_override o on o.lane_id = u.lane_id and o.until_at > clock_timestamp() order by u.lane_id) n
 where s.lane_id = n.lane_id;

-- name: messages
-- Content and sender of some messages, with the key of their domain.
select m.id, m.site_id, (select b.id from broadcast b where b.message_id = m.id limit 1) as broadcast_id, m.stream::text as stream, m.sender, m.reply_to, m.subject, m.html, m.text, m.headers, m.template, m.attachments, m.domain_id,
       d.name as domain, d.selector, d.algorithm, d.private_key_sealed,
       (select coalesce(json_agg(json_build_object('selector', k.selector, 'algorithm', k.algorithm, 'sealed', translate(encode(k.private_key_sealed, 'base64'), E'\n', ''))
                                 order by k.id), '[]') from domain_key k where k.domain_id = d.id and k.signs)::text as further_keys
  from message m left join domain d on d.id = m.domain_id and d.status = 'verified' where m.id = any ($1::bigint[]);
