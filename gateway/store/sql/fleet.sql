-- name: register
-- A new incarnation; gives its id.
insert into incarnation (host_key, pid) values ($1, $2) returning id;

-- name: beat
-- Move our counter, the fleet's tick too; no row: we were declared dead.
update incarnation set counter = counter + 1 where id = $1 and status = 'live' returning counter, nextval('fleet_tick') as tick;

-- name: others
-- Every incarnation that is not closed, ourselves included.
select id, host_key, counter, status from incarnation where status <> 'closed' order by id;

-- name: declare_dead
-- Only if its counter still stands where it was seen standing; gives its id, or nothing.
update incarnation set status = 'dead', ended_at = clock_timestamp() where id = $1 and counter = $2 and status = 'live' returning id;

-- name: bury
-- Declare dead an incarnation of this host whose process is known to be gone.
update incarnation set status = 'dead', ended_at = clock_timestamp() where id = $1 and status = 'live';

-- name: lock_dead
-- Take a dead incarnation for rescue; nothing when another has it.
select id from incarnation where id = $1 and status = 'dead' for update skip locked;

-- name: rescue
-- Take over what a dead incarnation held; what its journal says, by delivery and the epoch it says it of.
select state, n from rescue($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: close
-- End of a life that left nothing behind; gives its id, or nothing: it holds something still, or peers called it dead.
update incarnation set status = 'closed', ended_at = clock_timestamp()
 where id = $1 and status = 'live' and not exists (select from queue q where q.owner_id = $1 and q.state = 'leased') returning id;

-- name: status
-- Where an incarnation stands.
select status from incarnation where id = $1;

-- name: identity
-- Which database this is, and where its tick stands.
select i.id::text as database_id, (select last_value from fleet_tick) as tick from database_identity i;

-- name: hold_fleet
-- Nothing is claimed until an operator has reconciled. The numbers that ids are made of went back too: those that may have been
-- given out since the backup are left out, or an old journal's 250 would end another delivery. The tick goes on from where it was
-- seen, so that nobody takes the same restore for another one after it was reconciled.
with held as (insert into hold (kind, ref, why) values ('fleet', 0, $1) on conflict do nothing returning ref)
select setval('fleet_tick', greatest((select last_value from fleet_tick), $3::bigint)),
       (select setval('acceptance_id', (select last_value from acceptance_id) + $2::bigint) from held),
       (select setval('incarnation_id_seq', (select last_value from incarnation_id_seq) + 100000) from held);
