-- The queue: lanes, flows, deliveries, and the books about them. docs/architecture.md draws the picture.
create type delivery_state as enum (
    'queued', 'leased', 'deferred', 'held', 'in_doubt',
    'delivered', 'bounced', 'expired', 'suppressed', 'cancelled', 'quarantined', 'unresolved');

-- A lane: where deliveries to one destination leave. This row is cold; what a claim changes stands in lane_state.
create table lane (
    id          integer generated always as identity primary key,
    name        text not null,
    source      text not null default '',
    created_at  timestamptz not null default now(),
    unique (name, source)
);

-- domain -> lane, durable.
create table domain_lane (
    domain      text primary key,
    lane_id     integer not null references lane on delete cascade
);
create index domain_lane_lane on domain_lane (lane_id);

-- The bucket (GCRA) and what else a claim changes. No unique index on purpose: while an old snapshot is held, each
-- uniqueness check would walk every dead version of the row (measured 21 ms a claim after 6,000 claims). One row a
-- lane holds by construction: it is made in the statement that makes the lane.
create table lane_state (
    lane_id         integer not null,
    rate_per_s      double precision not null check (rate_per_s > 0),
    burst           double precision not null check (burst >= 1),
    max_connections integer not null check (max_connections > 0),
    tat             timestamptz not null default '-infinity',  -- theoretical arrival time of the next token
    token_at        timestamptz not null default '-infinity',  -- no claim before: the grant is spent
    next_due        timestamptz not null default 'infinity',   -- 'infinity': nothing is ready
    suspended_until timestamptz not null default '-infinity',
    suspended_why   text not null default '',
    ready_at        timestamptz not null generated always as (greatest(token_at, next_due, suspended_until)) stored,
    urgent          boolean not null default false,            -- a flow of priority 0 is active
    vtime           double precision[] not null default '{0,0}',  -- virtual time by priority (start-time fair queueing)
    slots           integer[] not null default '{}',           -- incarnation, connections, incarnation, connections …
    used_at         timestamptz not null default now()
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
create index lane_state_lane on lane_state (lane_id);
create index lane_state_ready on lane_state (ready_at);
create index lane_state_urgent on lane_state (ready_at) where urgent;

-- A flow: the deliveries of one site (or one broadcast) of one priority inside a lane; the unit of fairness.
create table flow (
    id           bigint generated always as identity primary key,
    lane_id      integer not null,
    priority     smallint not null check (priority between 0 and 1),
    site_id      integer not null,
    broadcast_id bigint not null default 0,
    weight       real not null default 1 check (weight > 0),
    vtag         double precision not null default 0,
    active       boolean not null default false,
    floor        bigint not null default 0,       -- nothing queued stands below this seq (dead entries do)
    used_at      timestamptz not null default now(),
    unique (lane_id, priority, site_id, broadcast_id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
create index flow_active on flow (lane_id, priority) where active;
create index flow_broadcast on flow (broadcast_id) where broadcast_id <> 0;

-- A delivery that has not ended. No foreign keys from here: the row is written four times in its life.
create table queue (
    id           bigint primary key,
    seq          bigint not null,                 -- place inside its flow
    flow_id      bigint not null,
    lane_id      integer not null,
    site_id      integer not null,
    message_id   bigint not null,
    broadcast_id bigint not null default 0,
    priority     smallint not null,
    state        delivery_state not null default 'queued',
    attempts     smallint not null default 0,
    doubts       smallint not null default 0,     -- times in doubt so far
    crashes      smallint not null default 0,     -- times its dispatcher died while it was started
    epoch        integer not null default 0,      -- lease number
    owner_id     integer,                         -- incarnation that holds the lease
    due_at       timestamptz not null,
    accepted_at  timestamptz not null,
    expires_at   timestamptz not null,
    recipient    text not null,
    variables    text,                            -- JSON, as the app gave it
    last_class   text,                            -- bounce class of the last attempt: why it waits
    last_reply   text
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
create index queue_ready on queue (flow_id, seq, id) where state = 'queued';
create index queue_waiting on queue (due_at) where state in ('deferred', 'in_doubt');
create index queue_leased on queue (owner_id) where state = 'leased';
create index queue_expiry on queue (expires_at) where state in ('queued', 'held');

-- What was accepted: the left side of the books. One row a transaction; ids id*1024 … id*1024+deliveries-1.
create table acceptance (
    id           bigint primary key,
    site_id      integer not null,
    message_id   bigint not null,
    broadcast_id bigint not null default 0,
    deliveries   smallint not null check (deliveries between 1 and 1024),
    accepted_at  timestamptz not null default now()
);
create index acceptance_broadcast on acceptance (broadcast_id) where broadcast_id <> 0;
create index acceptance_message on acceptance (message_id);

-- Deliveries that have ended: the terminal record.
create table ended (
    id           bigint not null,
    site_id      integer not null,
    message_id   bigint not null,
    broadcast_id bigint not null,
    lane_id      integer not null,
    priority     smallint not null,
    state        delivery_state not null check (state >= 'delivered'),
    attempts     smallint not null,
    doubts       smallint not null,
    code         smallint,
    enhanced     text,
    reply        text,
    bounce_class text,
    accepted_at  timestamptz not null,
    ended_at     timestamptz not null,
    recipient    text not null,
    primary key (id, accepted_at)
) partition by range (accepted_at);

-- What happened to a delivery beside its end: deferrals, doubts, rescues.
create table event (
    delivery_id  bigint not null,
    site_id      integer not null,
    broadcast_id bigint not null,
    kind         text not null,
    at           timestamptz not null,
    attempt      smallint not null default 0,
    code         smallint,
    enhanced     text,
    reply        text,
    bounce_class text,
    owner_id     integer
) partition by range (at);
create index event_delivery on event (delivery_id);

-- How many deliveries ended how: the right side of the books, in rows sharded by who writes them.
create table tally (
    site_id      integer not null,
    broadcast_id bigint not null,
    state        delivery_state not null,
    shard        smallint not null,
    n            bigint not null,
    primary key (broadcast_id, site_id, state, shard)
) with (fillfactor = 30);

-- What holds deliveries back without touching them: a paused or cancelled broadcast, a suspended site.
-- kind 'broadcast' or 'site'; 'fleet' (ref 0) stops all claiming, as after a restore.
create table hold (
    kind        text not null check (kind in ('broadcast', 'site', 'fleet')),
    ref         bigint not null,
    why         text not null,
    until_at    timestamptz,
    created_at  timestamptz not null default now(),
    primary key (kind, ref)
);

-- One life of one dispatcher process. Its counter moves while it lives; peers watch it on their own clocks.
create table incarnation (
    id          integer generated always as identity primary key,
    host_key    text not null,                     -- names the journal folder, not the machine
    pid         integer not null,
    counter     bigint not null default 0,
    status      text not null default 'live' check (status in ('live', 'dead', 'closed')),
    started_at  timestamptz not null default now(),
    ended_at    timestamptz
);
create index incarnation_open on incarnation (id) where status <> 'closed';

-- Moves with every heartbeat and never back: a database that shows less than a dispatcher remembers was restored.
create sequence fleet_tick;
create table database_identity (single boolean primary key default true check (single), id uuid not null default uuidv7());
insert into database_identity default values;

-- Partitions by day, made ahead. The default partitions take what no day was made for: nothing is refused.
create table ended_rest partition of ended default;
create table event_rest partition of event default;
create function make_partitions(p_days_ahead integer default 3) returns integer language plpgsql as $$
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
select make_partitions();
