-- Transcripts on request: which sessions an operator wants to see, and the lines that dispatchers saw in them. Lines hold
-- addresses: gateway_api may do nothing here, and everything goes an hour after its request's end.
create table trace_request (
    id         bigint generated always as identity primary key,
    kind       text not null check (kind in ('lane', 'message', 'delivery')),
    ref        bigint not null,
    until_at   timestamptz not null,
    lines_left integer not null check (lines_left between 0 and 2000),
    asked_at   timestamptz not null default clock_timestamp(),
    check (until_at <= asked_at + interval '1 hour')
);

create table trace_line (
    request_id  bigint not null references trace_request on delete cascade,
    id          bigint generated always as identity,
    at          timestamptz not null,              -- by the dispatcher's clock
    incarnation integer not null,
    connection  integer not null,                  -- counted by the incarnation; 0: about none of them
    delivery_id bigint,                            -- null: of no delivery, as the lines before the first MAIL
    direction   text not null check (direction in ('C', 'S', '*')),
    line        text not null check (octet_length(line) <= 4096),
    primary key (request_id, id)
);

alter table trace_request owner to gateway_maintain;
alter table trace_line owner to gateway_maintain;
grant select, insert, update, delete on trace_request, trace_line to gateway_dispatch;
