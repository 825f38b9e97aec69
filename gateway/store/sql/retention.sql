-- Queries of gateway/store/retention.py.

-- name: erase_due
-- Erases contents of stream $1 that were created before $2 and whose messages have ended; $3 messages are looked at, at most.
SELECT looked, erased FROM erase_due($1::text::stream, $2, $3);

-- name: erase_message
-- Erases message $2 of site $1; whether there is one.
SELECT erase_message($1, $2);

-- name: drop_event_day
-- Drops the oldest day of events if it ended before $1, or deletes $2 events that lie in no day.
SELECT days, rows FROM drop_event_day($1, $2);
