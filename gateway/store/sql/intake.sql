-- Queries of gateway/store/intake.py and waker.py. What the functions do is in migrations/0009 and 0011.

-- name: reserve
-- $1 numbers for acceptances and messages, in order.
SELECT nextval('acceptance_id') FROM generate_series(1, $1::integer);

-- name: ensure_lanes
-- Lanes of domains $1, made where missing with rates $2, bursts $3 and connections $4.
SELECT domain, lane_id FROM ensure_lanes($1, $2, $3, $4);

-- name: ensure_flows
-- Flows of priority $2, site $3 and broadcast $4 in lanes $1, made where missing.
SELECT lane_id, flow_id FROM ensure_flows($1, $2::smallint, $3, $4);

-- name: submit
-- Stores messages with their deliveries and the answers to their requests; gives what a lone key had before, and the suppressed.
SELECT replayed, body_hash, status, answer, suppressed
FROM submit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text[]::stream[], $11, $12, $13, $14, $15, $16, $17,
            $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28);

-- name: accept_deliveries
-- Accepts deliveries of site $1 and broadcast $2 with priority $3 at $4, in the caller's transaction; gives the places
-- of the suppressed, from 1.
SELECT accept_deliveries($1, $2, $3::smallint, $4, $5, $6, $7, $8, $9, $10, $11, $12);

-- name: wake_flows
-- Wakes flows $1, in which the lowest new places are $2, after the commit that made them.
SELECT wake($1, $2);
