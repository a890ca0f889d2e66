-- Requesting, claiming and ending runs.

create or replace function syncline.request_run(
    p_sources text[],
    p_entities text[] default '{}',
    p_options jsonb default '{}',
    p_trigger text default 'manual',
    p_triggered_by text default null,
    p_request_id text default null
) returns bigint
language plpgsql
as $$
declare
    v_run_id bigint;
begin
    perform pg_advisory_xact_lock(syncline.lock_class('claim'), 0);
    select run_id into v_run_id
    from syncline.runs
    where status = 'queued'
        and sources = (select coalesce(array_agg(s order by s), '{}') from unnest(p_sources) as s)
        and entities = (select coalesce(array_agg(e order by e), '{}') from unnest(p_entities) as e)
        and options = p_options;
    if found then
        return v_run_id;
    end if;
    insert into syncline.runs (sources, entities, options, trigger, triggered_by, request_id)
    select
        (select coalesce(array_agg(s order by s), '{}') from unnest(p_sources) as s),
        (select coalesce(array_agg(e order by e), '{}') from unnest(p_entities) as e),
        p_options,
        p_trigger,
        coalesce(p_triggered_by, session_user),
        coalesce(p_request_id, gen_random_uuid()::text)
    returning run_id into v_run_id;
    perform pg_notify('syncline_requested', v_run_id::text);
    return v_run_id;
end
$$;
comment on function syncline.request_run(text[], text[], jsonb, text, text, text) is
'Puts a run in the queue, or finds the identical one that waits there, and returns its number.';

create or replace function syncline.abandon_runs() returns setof bigint
language sql
as $$
    with lost as (
        update syncline.runs set
            status = case when attempt < max_attempts then 'queued' else 'abandoned' end,
            finished_at = case when attempt < max_attempts then null else clock_timestamp() end,
            error = jsonb_build_object('message', 'the process that worked this run is gone', 'exit_code', 1)
        where status = 'running' and not syncline.is_run_alive(run_id)
        returning run_id, attempt
    ),

    stopped as (
        update syncline.steps set status = 'abandoned', finished_at = clock_timestamp()
        from lost
        where steps.run_id = lost.run_id and steps.attempt = lost.attempt and steps.status = 'running'
    )

    select run_id from lost
$$;
comment on function syncline.abandon_runs() is
'Takes runs from workers that are gone: back to the queue while they have attempts left. Returns their numbers.';

create or replace function syncline.claim_run(p_run_id bigint default null) returns setof syncline.runs
language plpgsql
as $$
declare
    v_run_id bigint;
    v_lost bigint;
begin
    perform pg_advisory_xact_lock(syncline.lock_class('claim'), 0);
    for v_lost in select * from syncline.abandon_runs() loop
        perform syncline.withdraw_candidates(v_lost, null);
    end loop;
    select queued.run_id into v_run_id
    from syncline.runs as queued
    where queued.status = 'queued'
        and (p_run_id is null or queued.run_id = p_run_id)
        and not exists (
            select 1
            from syncline.runs as running
            where running.status = 'running' and running.sources && queued.sources
        )
    order by queued.run_id
    limit 1
    for update skip locked;
    if not found or not pg_try_advisory_lock(syncline.lock_class('run'), (v_run_id % 2147483647)::integer) then
        return;
    end if;
    return query
    update syncline.runs set
        status = 'running', attempt = attempt + 1, started_at = coalesce(started_at, clock_timestamp()), error = null
    where run_id = v_run_id
    returning *;
end
$$;
comment on function syncline.claim_run(bigint) is
'Claims the oldest run that may start, or the one named, for this session, which holds the run''s advisory lock from then on. Returns no row where none may start: one run per source at a time.';

create or replace function syncline.blocking_runs(p_run_id bigint) returns setof bigint
language sql stable
as $$
    select running.run_id
    from syncline.runs as queued
    inner join syncline.runs as running on running.status = 'running' and running.sources && queued.sources
    where queued.run_id = p_run_id
    order by running.run_id
$$;
comment on function syncline.blocking_runs(bigint) is 'The running runs that a queued run waits for.';

create or replace function syncline.join_queue(p_run_id bigint) returns void
language sql
as $$ select pg_advisory_lock_shared(syncline.lock_class('queue'), (p_run_id % 2147483647)::integer) $$;
comment on function syncline.join_queue(bigint) is
'Notes that this session waits for a run, which identical requests may share.';

create or replace function syncline.leave_queue(p_run_id bigint) returns boolean
language plpgsql
as $$
declare
    v_key integer := p_run_id % 2147483647;
begin
    perform pg_advisory_unlock_shared(syncline.lock_class('queue'), v_key);
    if not pg_try_advisory_xact_lock(syncline.lock_class('queue'), v_key) then
        return false;
    end if;
    update syncline.runs set status = 'cancelled', finished_at = clock_timestamp()
    where run_id = p_run_id and status = 'queued';
    return found;
end
$$;
comment on function syncline.leave_queue(bigint) is
'This session no longer waits for the run; true where it was cancelled, since nobody else does.';

create or replace function syncline.pin_loads() returns jsonb
language plpgsql
as $$
declare
    v_pinned jsonb;
begin
    perform syncline.hold_run();
    select coalesce(jsonb_object_agg(source || '.' || stream, last_load), '{}') into v_pinned
    from syncline.streams
    where last_load is not null;
    update syncline.runs set pinned_loads = v_pinned where run_id = syncline.session_run();
    return v_pinned;
end
$$;
comment on function syncline.pin_loads() is
'Pins the newest load of every stream for the session''s run: all its builds read as of these.';

create or replace function syncline.begin_step(p_step text) returns void
language plpgsql
as $$
begin
    perform syncline.hold_run();
    insert into syncline.steps (run_id, attempt, step, status)
    values (syncline.session_run(), syncline.session_attempt(), p_step, 'running');
end
$$;
comment on function syncline.begin_step(text) is 'Notes that the session''s run has begun a step.';

create or replace function syncline.finish_step(p_step text, p_status text) returns void
language sql
as $$
    update syncline.steps set status = p_status, finished_at = clock_timestamp()
    where run_id = syncline.session_run() and attempt = syncline.session_attempt() and step = p_step
$$;
comment on function syncline.finish_step(text, text) is 'Notes how a step of the session''s run ended.';

create or replace function syncline.finish_run(p_status text, p_error jsonb default null) returns void
language plpgsql
as $$
begin
    perform syncline.hold_run();
    update syncline.steps set status = 'failed', finished_at = clock_timestamp()
    where run_id = syncline.session_run() and attempt = syncline.session_attempt() and status = 'running';
    update syncline.runs set status = p_status, error = p_error, finished_at = clock_timestamp()
    where run_id = syncline.session_run();
    perform pg_advisory_unlock(syncline.lock_class('run'), (syncline.session_run() % 2147483647)::integer);
end
$$;
comment on function syncline.finish_run(text, jsonb) is
'Ends the session''s run as succeeded or failed and gives its lock back. `p_error`: message, hint, exit_code.';

create or replace function syncline.log(p_level text, p_event text, p_detail jsonb default '{}') returns void
language sql
as $$
    insert into syncline.log_events (run_id, level, event, detail)
    values (syncline.session_run(), p_level, p_event, p_detail)
$$;
comment on function syncline.log(text, text, jsonb) is
'Writes a log event for the session''s run. Never give it a value of a record.';
