-- Requesting, claiming and ending runs.

create or replace function syncline.sorted(p_names text[]) returns text[]
language sql immutable
as $$ select coalesce(array_agg(distinct name order by name), '{}') from unnest(p_names) as name $$;
comment on function syncline.sorted(text[]) is 'The names in order, each once.';

create or replace function syncline.check_request(p_sources text[], p_options jsonb) returns void
language plpgsql
as $$
declare
    v_known text[] := (select syncline.sorted(array_agg(source)) from syncline.streams where is_declared);
    v_options text[] := array[
        'streams', 'steps', 'dry_run', 'limit', 'full_refresh', 'force_overwrite', 'allow_mass_delete', 'since', 'until',
        'publish', 'push', 'adopt', 'key', 'replay'
    ];
    v_unknown text;
begin
    select string_agg(quote_literal(name), ', ') into v_unknown from unnest(p_sources) as name where name <> all (v_known);
    if v_unknown is not null then
        raise exception using
            errcode = 'SY201',
            message = format('there is no source named %s', v_unknown),
            hint = format('Known here: %s. `syncline migrate` makes new ones known.', array_to_string(v_known, ', '));
    end if;
    select string_agg(quote_literal(name), ', ') into v_unknown
    from jsonb_object_keys(p_options) as name
    where name <> all (v_options);
    if v_unknown is not null then
        raise exception using
            errcode = 'SY231',
            message = format('a run has no option named %s', v_unknown),
            hint = format('There are: %s.', array_to_string(v_options, ', '));
    end if;
    if cardinality(p_sources) = 0 and cardinality(v_known) = 0 then
        raise exception using
            errcode = 'SY232',
            message = 'there is no source to run',
            hint = 'Declare one in a sources file, then `syncline migrate`.';
    end if;
end
$$;
comment on function syncline.check_request(text[], jsonb) is
'Raises SY201 for a source and SY231 for an option that there is not, SY232 where there is no source at all.';

create or replace function syncline.request_run(
    p_sources text[] default '{}',
    p_entities text[] default '{}',
    p_options jsonb default '{}',
    p_trigger text default 'manual',
    p_triggered_by text default null,
    p_request_id text default null,
    p_max_attempts integer default 3,
    p_backoff interval[] default '{1 second,10 seconds}',
    p_timeout interval default null,
    p_schedule text default null,
    p_is_foreground boolean default false,
    p_retry_of bigint default null
) returns bigint
language plpgsql
as $$
declare
    v_sources text[];
    v_run_id bigint;
begin
    perform syncline.check_request(p_sources, p_options);
    v_sources := syncline.sorted(p_sources);
    if cardinality(v_sources) = 0 then
        v_sources := (select syncline.sorted(array_agg(source)) from syncline.streams where is_declared);
    end if;
    perform pg_advisory_xact_lock(syncline.lock_class('claim'), 0);
    update syncline.runs set
        is_foreground = is_foreground and p_is_foreground,
        max_attempts = greatest(max_attempts, attempt + p_max_attempts),
        timeout = least(timeout, p_timeout)
    where run_id = (
        -- Two are there where one failed and waits for its next attempt.
        select min(run_id)
        from syncline.runs
        where status = 'queued'
            and sources = v_sources
            and entities = syncline.sorted(p_entities)
            and options = p_options
    )
    returning run_id into v_run_id;
    if not found then
        insert into syncline.runs (
            sources, entities, options, trigger, triggered_by, request_id, max_attempts, backoff, timeout, schedule,
            is_foreground, retry_of
        )
        values (
            v_sources, syncline.sorted(p_entities), p_options, p_trigger, coalesce(p_triggered_by, session_user),
            coalesce(p_request_id, gen_random_uuid()::text), p_max_attempts, p_backoff, p_timeout, p_schedule,
            p_is_foreground, p_retry_of
        )
        returning run_id into v_run_id;
    end if;
    if p_is_foreground then
        perform pg_advisory_lock_shared(syncline.lock_class('queue'), (v_run_id % 2147483647)::integer);
    end if;
    perform pg_notify('syncline_requested', v_run_id::text);
    return v_run_id;
end
$$;
comment on function syncline.request_run(
    text[], text[], jsonb, text, text, text, integer, interval[], interval, text, boolean, bigint
) is
'Puts a run in the queue, or finds the identical one that waits there, and returns its number. No sources: all that are declared. In the foreground the session waits for it, until leave_queue.';

create or replace function syncline.retry_run(
    p_run_id bigint,
    p_trigger text default 'manual',
    p_triggered_by text default null,
    p_request_id text default null
) returns bigint
language plpgsql
as $$
declare
    v_run syncline.runs;
begin
    select * into v_run from syncline.runs where run_id = p_run_id;
    if not found then
        perform syncline.raise_unknown_run(p_run_id);
    end if;
    if v_run.status in ('queued', 'running') then
        raise exception using
            errcode = 'SY331',
            message = format('run %s is %s', p_run_id, v_run.status),
            hint = 'A run can be tried again once it has ended.';
    end if;
    if v_run.options ? 'push' then
        raise exception using
            errcode = 'SY332',
            message = format('run %s was a push, whose records are gone', p_run_id),
            hint = 'Send the records again.';
    end if;
    return syncline.request_run(
        v_run.sources, v_run.entities, v_run.options, p_trigger, p_triggered_by, p_request_id, v_run.max_attempts,
        v_run.backoff, v_run.timeout, v_run.schedule, false, p_run_id
    );
end
$$;
comment on function syncline.retry_run(bigint, text, text, text) is
'Requests a run once more that has ended: a new run with the same sources, entities and options. Returns its number.';

create or replace function syncline.raise_unknown_run(p_run_id bigint) returns void
language plpgsql
as $$
begin
    raise exception using
        errcode = 'SY201',
        message = format('there is no run %s', p_run_id),
        hint = '`syncline runs` lists them.';
end
$$;
comment on function syncline.raise_unknown_run(bigint) is 'Raises SY201: there is no such run.';

create or replace function syncline.cancel_run(p_run_id bigint, p_requested_by text default null) returns text
language plpgsql
as $$
declare
    v_status text;
begin
    perform pg_advisory_xact_lock(syncline.lock_class('claim'), 0);
    select status into v_status from syncline.runs where run_id = p_run_id;
    if v_status is null then
        perform syncline.raise_unknown_run(p_run_id);
    elsif v_status = 'queued' then
        v_status := 'cancelled';
        update syncline.runs set
            status = v_status,
            finished_at = clock_timestamp(),
            error = syncline.cancellation_error(coalesce(p_requested_by, session_user))
        where run_id = p_run_id;
        perform pg_notify('syncline_finished', p_run_id::text);
    elsif v_status = 'running' then
        insert into syncline.cancellations (run_id, requested_by)
        values (p_run_id, coalesce(p_requested_by, session_user))
        on conflict do nothing;
        perform pg_notify('syncline_cancelled', p_run_id::text);
    else
        raise exception using
            errcode = 'SY331',
            message = format('run %s is %s', p_run_id, v_status),
            hint = 'A run can be cancelled until it has ended.';
    end if;
    return v_status;
end
$$;
comment on function syncline.cancel_run(bigint, text) is
'Cancels a queued run, or asks the process that works it to stop. Returns its status now: cancelled, or running until it has stopped.';

create or replace function syncline.cancellation_error(p_requested_by text) returns jsonb
language sql immutable
as $$
    select jsonb_build_object(
        'message', 'cancelled by ' || p_requested_by,
        'hint', 'Run again when it is wanted.',
        'exit_code', 1
    )
$$;
comment on function syncline.cancellation_error(text) is 'What a cancelled run says.';

create or replace function syncline.cancelled_by(p_run_id bigint) returns text
language sql stable
as $$ select requested_by from syncline.cancellations where run_id = p_run_id $$;
comment on function syncline.cancelled_by(bigint) is 'Who asked to cancel the running run; null where nobody did.';

create or replace function syncline.retry_at(p_attempt integer, p_backoff interval[]) returns timestamptz
language sql volatile
as $$ select clock_timestamp() + least(p_backoff[2], p_backoff[1] * 2 ^ least(p_attempt - 1, 30)) $$;
comment on function syncline.retry_at(integer, interval[]) is
'When a run may start again after this attempt failed: pauses double from the first of the backoff up to its second.';

create or replace function syncline.abandon_runs() returns setof bigint
language sql
as $$
    with lost as (
        update syncline.runs set
            status = ended.status,
            finished_at = case when ended.status <> 'queued' then clock_timestamp() end,
            due_at = syncline.retry_at(runs.attempt, runs.backoff),
            error = ended.error
        from (
            select
                run.run_id,
                case
                    when stop.run_id is not null then 'cancelled'
                    when run.attempt < run.max_attempts then 'queued'
                    else 'abandoned'
                end as status,
                case
                    when stop.run_id is not null then syncline.cancellation_error(stop.requested_by)
                    else jsonb_build_object(
                        'message', 'the process that worked this run is gone',
                        'hint', 'Run again; `select * from syncline.run_events(RUN)` has its last log events.',
                        'exit_code', 1
                    )
                end as error
            from syncline.runs as run
            left join syncline.cancellations as stop on run.run_id = stop.run_id
            where run.status = 'running' and not syncline.is_run_alive(run.run_id)
            -- One that a transaction of its own still holds is lost when that has ended.
            for update of run skip locked
        ) as ended
        -- The status once more: one that ends at this moment gives its lock back before it commits.
        where runs.run_id = ended.run_id and runs.status = 'running'
        returning runs.run_id, runs.attempt, runs.status, runs.request_id
    ),

    stopped as (
        update syncline.steps set status = 'abandoned', finished_at = clock_timestamp()
        from lost
        where steps.run_id = lost.run_id and steps.attempt = lost.attempt and steps.status = 'running'
    ),

    uncancelled as (delete from syncline.cancellations using lost where cancellations.run_id = lost.run_id),

    -- A command in the foreground that is gone before it could claim its run.
    left_alone as (
        update syncline.runs set status = 'abandoned', finished_at = clock_timestamp()
        where status = 'queued'
            and is_foreground
            and requested_at < clock_timestamp() - interval '1 minute'
            and not syncline.is_lock_held('queue', run_id)
        returning run_id
    ),

    logged as (
        insert into syncline.log_events (run_id, request_id, level, event, detail)
        select run_id, request_id, 'error', 'sync_lost', jsonb_build_object('attempt', attempt, 'status', status)
        from lost
    )

    select run_id from lost where pg_notify('syncline_finished', run_id::text) is not null
    union all
    select run_id from left_alone
$$;
comment on function syncline.abandon_runs() is
'Takes runs from processes that are gone: back to the queue while they have attempts left. Returns their numbers.';

create or replace function syncline.claim_run(p_run_id bigint default null, p_sources text[] default null)
returns setof syncline.runs
language plpgsql
as $$
declare
    v_run_id bigint;
begin
    perform pg_advisory_xact_lock(syncline.lock_class('claim'), 0);
    perform syncline.abandon_runs();
    select queued.run_id into v_run_id
    from syncline.runs as queued
    where queued.status = 'queued'
        and case when p_run_id is null
            then not queued.is_foreground
                and queued.due_at <= clock_timestamp()
                and (p_sources is null or queued.sources <@ p_sources)
            else queued.run_id = p_run_id
        end
        and not exists (
            select 1
            from syncline.runs as running
            where running.status = 'running' and running.sources && queued.sources
        )
        -- An older one of several sources would wait for ever where younger ones took them in turn.
        and (
            p_run_id is not null
            or not exists (
                select 1
                from syncline.runs as older
                where older.status = 'queued'
                    and older.run_id < queued.run_id
                    and older.sources && queued.sources
                    and not older.is_foreground
                    and older.due_at <= clock_timestamp()
                    and (p_sources is null or older.sources <@ p_sources)
            )
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
    perform set_config('syncline.run_id', v_run_id::text, false);
    perform set_config('syncline.attempt', attempt::text, false) from syncline.runs where run_id = v_run_id;
end
$$;
comment on function syncline.claim_run(bigint, text[]) is
'Claims the oldest run that is due and may start (of these sources alone, where given), or the one named, for this session, which holds the run''s advisory lock and works for it from then on. Returns no row where none may start: one run per source at a time.';

create or replace function syncline.seconds_until_due(p_sources text[] default null) returns double precision
language sql stable
as $$
    -- Of null and 0, greatest() takes 0.
    select case when min(due_at) is not null then greatest(0, extract(epoch from min(due_at) - clock_timestamp())) end
    from syncline.runs
    where status = 'queued'
        and not is_foreground
        and due_at > clock_timestamp()
        and (p_sources is null or sources <@ p_sources)
$$;
comment on function syncline.seconds_until_due(text[]) is
'How long until a queued run of these sources comes due that is not yet; null where there is none.';

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

create or replace function syncline.leave_queue(p_run_id bigint) returns boolean
language plpgsql
as $$
declare
    v_key integer := p_run_id % 2147483647;
begin
    perform pg_advisory_xact_lock(syncline.lock_class('claim'), 0);
    perform pg_advisory_unlock_shared(syncline.lock_class('queue'), v_key);
    if not pg_try_advisory_xact_lock(syncline.lock_class('queue'), v_key) then
        return false;
    end if;
    update syncline.runs set status = 'cancelled', finished_at = clock_timestamp()
    where run_id = p_run_id and status = 'queued' and is_foreground;
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

create or replace function syncline.finish_run(p_status text, p_error jsonb default null) returns text
language plpgsql
as $$
declare
    v_run syncline.runs;
begin
    perform syncline.hold_run();
    update syncline.steps set status = 'failed', finished_at = clock_timestamp()
    where run_id = syncline.session_run() and attempt = syncline.session_attempt() and status = 'running';
    update syncline.runs set
        status = ended.status,
        error = p_error,
        finished_at = case when ended.status <> 'queued' then clock_timestamp() end,
        due_at = syncline.retry_at(attempt, backoff)
    from (
        select case
            when p_status = 'failed' and (p_error ->> 'exit_code')::integer = 1 and run.attempt < run.max_attempts then 'queued'
            else p_status
        end as status
        from syncline.runs as run
        where run.run_id = syncline.session_run()
    ) as ended
    where run_id = syncline.session_run()
    returning runs.* into v_run;
    delete from syncline.cancellations where run_id = v_run.run_id;
    if v_run.status = 'queued' then
        perform syncline.log(
            'warning',
            'sync_retry',
            jsonb_build_object('attempt', v_run.attempt, 'max_attempts', v_run.max_attempts, 'due_at', v_run.due_at)
        );
    end if;
    perform syncline.leave_run();
    return v_run.status;
end
$$;
comment on function syncline.finish_run(text, jsonb) is
'Ends the session''s run as succeeded, failed or cancelled and gives its lock back. `p_error`: message, hint, exit_code. A failed run (exit code 1) that has attempts left goes back to the queue. Returns its status now.';

create or replace function syncline.hand_back_run() returns void
language plpgsql
as $$
begin
    perform syncline.hold_run();
    update syncline.steps set status = 'abandoned', finished_at = clock_timestamp()
    where run_id = syncline.session_run() and attempt = syncline.session_attempt() and status = 'running';
    update syncline.runs set status = 'queued', max_attempts = max_attempts + 1, due_at = clock_timestamp()
    where run_id = syncline.session_run();
    perform syncline.log('warning', 'sync_handed_back');
    perform syncline.leave_run();
end
$$;
comment on function syncline.hand_back_run() is
'Puts the session''s run back in the queue, for another worker to begin it anew; this attempt does not count.';

create or replace function syncline.leave_run() returns void
language plpgsql
as $$
declare
    v_run_id bigint := syncline.session_run();
begin
    -- Whatever it holds was the run's: of an interrupted one also locks of entities.
    perform pg_advisory_unlock_all();
    perform set_config('syncline.run_id', '', false), set_config('syncline.attempt', '', false);
    perform pg_notify('syncline_finished', v_run_id::text), pg_notify('syncline_requested', v_run_id::text);
end
$$;
comment on function syncline.leave_run() is
'The session no longer works for its run: gives its locks back and tells those who wait for it, or for its sources.';

create or replace function syncline.log(p_level text, p_event text, p_detail jsonb default '{}') returns void
language sql
as $$
    insert into syncline.log_events (run_id, request_id, level, event, detail)
    values (
        syncline.session_run(),
        coalesce(
            (select request_id from syncline.runs where run_id = syncline.session_run()),
            nullif(current_setting('syncline.request_id', true), '')
        ),
        p_level,
        p_event,
        p_detail
    )
$$;
comment on function syncline.log(text, text, jsonb) is
'Writes a log event for the session''s run or request. Never give it a value of a record.';

create or replace function syncline.run_events(p_run_id bigint, p_after bigint default 0)
returns table (event_id bigint, logged_at timestamptz, level text, event text, request_id text, detail jsonb)
language sql stable
as $$
    select logged.event_id, logged.logged_at, logged.level, logged.event, logged.request_id, logged.detail
    from syncline.log_events as logged
    where logged.run_id = p_run_id and logged.event_id > p_after
    order by logged.event_id
$$;
comment on function syncline.run_events(bigint, bigint) is 'The log events of a run after the one numbered, oldest first.';

create or replace function syncline.prune_log(p_age interval default '30 days') returns bigint
language sql
as $$
    with pruned as (delete from syncline.log_events where logged_at < clock_timestamp() - p_age returning 1)

    select count(*) from pruned
$$;
comment on function syncline.prune_log(interval) is 'Deletes log events older than this; returns how many.';
