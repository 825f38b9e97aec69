-- Roles of the database. `api` works under row-level security, `dispatch` and `import` see every site (COPY cannot
-- run under row-level security), `maintain` owns what can be owned. Roles live in the cluster, not in the database:
-- they are made once, and a login that may not make them is told which to ask its administrator for.
do $$
declare wanted text;
begin
    foreach wanted in array array['gateway_api', 'gateway_dispatch', 'gateway_maintain'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            begin
                execute format('create role %I nologin', wanted);
            exception
                when duplicate_object or unique_violation then null;  -- another database of this cluster was quicker
                when insufficient_privilege then
                    raise exception 'the role % is missing and % may not create it', wanted, current_user
                        using hint = format('as an administrator: create role %I nologin; grant %I to %I;', wanted, wanted, current_user);
            end;
        end if;
        if not pg_has_role(current_user, wanted, 'member') then
            execute format('grant %I to %I', wanted, current_user);
        end if;
    end loop;
end $$;
grant usage on schema public to gateway_api, gateway_dispatch, gateway_maintain;

-- Which site this transaction works for; '*' is an operator. Empty means none: row-level security then shows nothing.
create function current_site() returns integer language sql stable parallel safe
return nullif(nullif(current_setting('gateway.site_id', true), '*'), '')::integer;

create function is_operator() returns boolean language sql stable parallel safe
return coalesce(current_setting('gateway.site_id', true) = '*', false);
