-- Schedules: when which run is asked for. pg_cron fires them where it can, workers fire the others.
-- What touches pg_cron runs as the owner of this schema, so that all its jobs are one user's.

create or replace function syncline.check_cron(p_cron text) returns text
language plpgsql immutable
as $$
declare
    v_names text[] := array['minute', 'hour', 'day of the month', 'month', 'day of the week'];
    v_fields text[] := regexp_split_to_array(btrim(p_cron, E' \t\r\n'), '\s+');
    v_count integer := cardinality(v_fields);
begin
    if v_count = 6 then
        raise exception using
            errcode = 'SY221',
            message = format('the cron expression %L has six fields', p_cron),
            hint = 'Write five, without seconds: minute, hour, day of the month, month, day of the week, such as 0 */6 * * *.';
    elsif v_count <> 5 then
        raise exception using
            errcode = 'SY221',
            message = format('%L is no cron expression', p_cron),
            hint = 'Write five fields: minute, hour, day of the month, month, day of the week, such as 0 */6 * * *.';
    end if;
    for v_place in 1..5 loop
        if not syncline.is_cron_field(v_fields[v_place], v_place) then
            raise exception using
                errcode = 'SY221',
                message = format(
                    'the cron expression %L is wrong at %L, the %s', p_cron, v_fields[v_place], v_names[v_place]
                ),
                hint = 'A field is *, a number, a range 1-5, a step */15 or a list of these with commas.';
        end if;
    end loop;
    return array_to_string(v_fields, ' ');
end
$$;
comment on function syncline.check_cron(text) is
'The cron expression with single blanks between its five fields; raises SY221 where it is none.';

create or replace function syncline.is_cron_field(p_field text, p_place integer) returns boolean
language sql immutable
as $$
    select bool_and(
        case
            when p_place = 3 and upper(item) in ('L', 'LW') then true
            when p_place = 5 and item ~ '^0*[0-7][Ll]$' then true
            when p_place = 5 and item ~ '^\w+#0*[1-5]$' then
                syncline.cron_number(split_part(item, '#', 1), p_place) is not null
            when part[1] is null then false
            when part[4]::integer = 0 then false
            when part[1] = '*' then true
            when part[3] is null then syncline.cron_number(part[1], p_place) is not null
            else coalesce(syncline.cron_number(part[1], p_place) <= syncline.cron_number(part[3], p_place), false)
        end
    )
    from string_to_table(p_field, ',') as item
    left join lateral regexp_match(item, '^(\*|\w{1,4})(-(\w{1,4}))?(?:/([0-9]{1,4}))?$') as part on item !~ '^\*-'
$$;
comment on function syncline.is_cron_field(text, integer) is
'Whether a cron expression may say this at this place, 1 (the minute) to 5 (the day of the week).';

create or replace function syncline.cron_number(p_value text, p_place integer) returns integer
language sql immutable
as $$
    select number
    from (
        select case
            when p_value ~ '^[0-9]{1,4}$' then p_value::integer
            when p_place = 4 then
                array_position(string_to_array('JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC', ' '), upper(p_value))
            when p_place = 5 then array_position(string_to_array('SUN MON TUE WED THU FRI SAT', ' '), upper(p_value)) - 1
        end as number
    ) as found
    where number between (array[0, 0, 1, 1, 0])[p_place] and (array[59, 23, 31, 12, 7])[p_place]
$$;
comment on function syncline.cron_number(text, integer) is
'A number, or the name of a month or of a day of the week, at a place of a cron expression; null where it does not fit.';

create or replace function syncline.check_zone(p_zone text) returns text
language plpgsql stable
as $$
declare
    v_zone text := (
        select name
        from pg_catalog.pg_timezone_names
        where lower(name) = lower(p_zone) and name !~ '^(posix|right)/|^(localtime|posixrules|Factory)$'
    );
begin
    if v_zone is null then
        raise exception using
            errcode = 'SY222',
            message = format('there is no time zone named %L', p_zone),
            hint = 'Write a name such as UTC or Europe/Prague; select name from pg_timezone_names lists them.';
    end if;
    return v_zone;
end
$$;
comment on function syncline.check_zone(text) is 'The time zone as Postgres spells it; raises SY222 where it knows none of that name.';

create or replace function syncline.check_schedule(p_schedule syncline.schedules) returns void
language plpgsql
as $$
declare
    v_unknown text;
begin
    if p_schedule.name is null or p_schedule.name !~ '^[a-z0-9_-]{1,50}$' then
        raise exception using
            errcode = 'SY223',
            message = format('a schedule cannot be named %L', p_schedule.name),
            hint = 'Use lowercase letters, digits, _ and -, at most 50.';
    elsif p_schedule.max_attempts < 1 or p_schedule.timeout <= interval '0' then
        raise exception using
            errcode = 'SY223',
            message = format('the schedule %s has no attempt, or no time for one', p_schedule.name),
            hint = 'Attempts are at least 1; a timeout is more than 0 seconds.';
    elsif jsonb_typeof(p_schedule.options) <> 'object' then
        raise exception using
            errcode = 'SY223',
            message = 'the options of a schedule are a JSON object',
            hint = 'Write, for instance, {"dry_run": true}.';
    elsif p_schedule.options ?| array['push', 'adopt', 'key'] then
        raise exception using
            errcode = 'SY202',
            message = 'a schedule can neither push nor adopt',
            hint = 'Leave out the options push, adopt and key.';
    end if;
    perform syncline.check_request(p_schedule.sources, p_schedule.options);
    select string_agg(quote_literal(wanted), ', ') into v_unknown
    from jsonb_array_elements_text(coalesce(p_schedule.options -> 'streams', '[]')) as wanted
    where not exists (
        select 1
        from syncline.streams as known
        where known.is_declared
            and wanted in (known.stream, known.source || '.' || known.stream)
            and (cardinality(p_schedule.sources) = 0 or known.source = any (p_schedule.sources))
    );
    if v_unknown is not null then
        raise exception using
            errcode = 'SY201',
            message = format('there is no stream named %s in the sources of this schedule', v_unknown),
            hint = '`syncline status` lists the streams; `syncline migrate` makes new ones known.';
    end if;
end
$$;
comment on function syncline.check_schedule(syncline.schedules) is
'Raises SY201 to SY203 and SY223 where a schedule names what does not exist, or says what makes no sense.';

create or replace function syncline.raise_unknown_schedule(p_name text) returns void
language plpgsql stable
as $$
begin
    raise exception using
        errcode = 'SY220',
        message = format('there is no schedule named %L', p_name),
        hint = coalesce(
            'There are: ' || (select string_agg(name, ', ' order by name) from syncline.schedules) || '.',
            'There is none yet: `syncline schedule create`.'
        );
end
$$;
comment on function syncline.raise_unknown_schedule(text) is 'Raises SY220: there is no such schedule.';

create or replace function syncline.create_schedule(
    p_name text,
    p_cron text,
    p_zone text default 'UTC',
    p_sources text[] default '{}',
    p_entities text[] default '{}',
    p_options jsonb default '{}',
    p_max_attempts integer default 3,
    p_timeout interval default null,
    p_created_by text default null
) returns text
language plpgsql
as $$
declare
    v_schedule syncline.schedules;
begin
    v_schedule.name := p_name;
    v_schedule.cron := syncline.check_cron(p_cron);
    v_schedule.zone := syncline.check_zone(p_zone);
    v_schedule.sources := syncline.sorted(p_sources);
    v_schedule.entities := syncline.sorted(p_entities);
    v_schedule.options := coalesce(p_options, '{}');
    v_schedule.max_attempts := p_max_attempts;
    v_schedule.timeout := p_timeout;
    perform syncline.check_schedule(v_schedule);
    insert into syncline.schedules (name, cron, zone, sources, entities, options, max_attempts, timeout, created_by)
    values (
        v_schedule.name, v_schedule.cron, v_schedule.zone, v_schedule.sources, v_schedule.entities, v_schedule.options,
        v_schedule.max_attempts, v_schedule.timeout, coalesce(p_created_by, session_user)
    )
    on conflict do nothing;
    if not found then
        raise exception using
            errcode = 'SY323',
            message = format('there is a schedule named %L already', p_name),
            hint = '`syncline schedule set` changes it.';
    end if;
    perform syncline.link_schedule(p_name);
    return (select fired_by from syncline.schedules where name = p_name);
end
$$;
comment on function syncline.create_schedule(text, text, text, text[], text[], jsonb, integer, interval, text) is
'Makes a schedule: the run that is asked for whenever the cron expression says so in the time zone. Returns who fires it: pg_cron or worker.';

create or replace function syncline.set_schedule(
    p_name text,
    p_cron text default null,
    p_zone text default null,
    p_sources text[] default null,
    p_entities text[] default null,
    p_options jsonb default null,
    p_max_attempts integer default null,
    p_timeout interval default null
) returns text
language plpgsql
as $$
declare
    v_old syncline.schedules;
    v_new syncline.schedules;
begin
    select * into v_old from syncline.schedules where name = p_name for update;
    if not found then
        perform syncline.raise_unknown_schedule(p_name);
    end if;
    v_new := v_old;
    v_new.cron := case when p_cron is null then v_old.cron else syncline.check_cron(p_cron) end;
    v_new.zone := case when p_zone is null then v_old.zone else syncline.check_zone(p_zone) end;
    v_new.sources := syncline.sorted(coalesce(p_sources, v_old.sources));
    v_new.entities := syncline.sorted(coalesce(p_entities, v_old.entities));
    v_new.options := coalesce(p_options, v_old.options);
    v_new.max_attempts := coalesce(p_max_attempts, v_old.max_attempts);
    v_new.timeout := nullif(coalesce(p_timeout, v_old.timeout), interval '0');
    perform syncline.check_schedule(v_new);
    update syncline.schedules set
        cron = v_new.cron,
        zone = v_new.zone,
        sources = v_new.sources,
        entities = v_new.entities,
        options = v_new.options,
        max_attempts = v_new.max_attempts,
        timeout = v_new.timeout,
        -- Times that only the new expression has are not owed.
        settled_at = case when (v_new.cron, v_new.zone) = (v_old.cron, v_old.zone) then settled_at else clock_timestamp() end,
        last_error = null
    where name = p_name;
    perform syncline.link_schedule(p_name);
    return (select fired_by from syncline.schedules where name = p_name);
end
$$;
comment on function syncline.set_schedule(text, text, text, text[], text[], jsonb, integer, interval) is
'Changes what is given of a schedule; a timeout of 0 takes it away. Returns who fires it: pg_cron or worker.';

create or replace function syncline.pause_schedule(p_name text) returns void
language plpgsql
as $$
begin
    update syncline.schedules set is_paused = true where name = p_name;
    if not found then
        perform syncline.raise_unknown_schedule(p_name);
    end if;
    perform syncline.link_schedule(p_name);
end
$$;
comment on function syncline.pause_schedule(text) is 'Fires the schedule no more until it is resumed.';

create or replace function syncline.resume_schedule(p_name text) returns text
language plpgsql
as $$
begin
    update syncline.schedules set
        is_paused = false,
        resumed_at = case when is_paused then clock_timestamp() else resumed_at end,
        settled_at = case when is_paused then clock_timestamp() else settled_at end
    where name = p_name;
    if not found then
        perform syncline.raise_unknown_schedule(p_name);
    end if;
    perform syncline.link_schedule(p_name);
    return (select fired_by from syncline.schedules where name = p_name);
end
$$;
comment on function syncline.resume_schedule(text) is
'Fires a paused schedule again from its next time on. Returns who fires it: pg_cron or worker.';

create or replace function syncline.delete_schedule(p_name text) returns void
language plpgsql
as $$
begin
    delete from syncline.schedules where name = p_name;
    if not found then
        perform syncline.raise_unknown_schedule(p_name);
    end if;
    perform syncline.drop_jobs(p_name);
end
$$;
comment on function syncline.delete_schedule(text) is 'Deletes a schedule. Its runs stay, those in the queue too.';

create or replace function syncline.fire_schedule(
    p_name text,
    p_scheduled_for timestamptz default null,
    p_missed bigint default 0
) returns bigint
language plpgsql
-- A job of pg_cron is the owner's, and others may create where its path would look.
set search_path to 'pg_catalog', 'pg_temp'
as $$
declare
    v_scheduled_for timestamptz := coalesce(p_scheduled_for, date_trunc('minute', clock_timestamp()));
    v_schedule syncline.schedules;
    v_run_id bigint;
    v_message text;
begin
    begin
        -- Whoever comes first has it: the others wait for the row, and find the time settled.
        update syncline.schedules set
            settled_at = v_scheduled_for,
            last_scheduled_for = v_scheduled_for,
            last_fired_at = clock_timestamp(),
            missed_runs = missed_runs + p_missed,
            last_error = null
        where name = p_name
            and not is_paused
            -- One ahead of the clock was settled before the clock went back.
            and (settled_at < v_scheduled_for or settled_at > clock_timestamp() + interval '1 minute')
        returning * into v_schedule;
        if not found then
            perform syncline.raise_unknown_schedule(p_name)
            where not exists (select 1 from syncline.schedules where name = p_name);
            return null;
        end if;
        v_run_id := syncline.request_schedule(v_schedule, 'scheduler', 'schedule ' || p_name, null);
        if p_missed > 0 then
            perform syncline.log(
                'warning', 'schedule_missed', jsonb_build_object('schedule', p_name, 'missed', p_missed, 'run_id', v_run_id)
            );
        end if;
    exception
        when others then
            if sqlstate !~ '^SY2' or sqlstate = 'SY220' then
                raise;
            end if;
            get stacked diagnostics v_message = message_text;
    end;
    if v_message is not null then
        perform syncline.note_schedule_error(p_name, v_message);
    end if;
    return v_run_id;
end
$$;
comment on function syncline.fire_schedule(text, timestamptz, bigint) is
'Asks for a schedule''s run for the time given, or for this minute, once; `p_missed` times before it are passed over. Returns the run''s number; null where the time is settled already, the schedule is paused, or its run is refused, which the schedule then notes.';

create or replace function syncline.request_schedule(
    p_schedule syncline.schedules,
    p_trigger text,
    p_triggered_by text,
    p_request_id text
) returns bigint
language plpgsql
as $$
declare
    v_run_id bigint := syncline.request_run(
        p_schedule.sources,
        p_schedule.entities,
        p_schedule.options,
        p_trigger,
        p_triggered_by,
        p_request_id,
        p_schedule.max_attempts,
        p_timeout => p_schedule.timeout,
        p_schedule => p_schedule.name
    );
begin
    update syncline.schedules set last_run = v_run_id where name = p_schedule.name;
    return v_run_id;
end
$$;
comment on function syncline.request_schedule(syncline.schedules, text, text, text) is
'Asks for the run that a schedule describes; returns its number.';

create or replace function syncline.note_schedule_error(p_name text, p_message text) returns void
language plpgsql
as $$
begin
    update syncline.schedules set last_error = p_message where name = p_name and last_error is distinct from p_message;
    if found then
        perform syncline.log('error', 'schedule_fail', jsonb_build_object('schedule', p_name, 'message', p_message));
    end if;
end
$$;
comment on function syncline.note_schedule_error(text, text) is 'Notes why a schedule could not be fired, and logs it once.';

create or replace function syncline.trigger_schedule(
    p_name text,
    p_trigger text default 'manual',
    p_triggered_by text default null,
    p_request_id text default null
) returns bigint
language plpgsql
as $$
declare
    v_schedule syncline.schedules;
begin
    -- The row first and the queue second, as fire_schedule takes them.
    select * into v_schedule from syncline.schedules where name = p_name for update;
    if not found then
        perform syncline.raise_unknown_schedule(p_name);
    end if;
    return syncline.request_schedule(v_schedule, p_trigger, p_triggered_by, p_request_id);
end
$$;
comment on function syncline.trigger_schedule(text, text, text, text) is
'Asks for a schedule''s run now, by hand, paused or not; its next time stays. Returns the run''s number.';

create or replace function syncline.schedules_to_fire()
returns table (name text, cron text, zone text, settled_at timestamptz, checked_at timestamptz)
language plpgsql
as $$
begin
    -- pg_cron may be gone since: dropped, or the database is a copy of another.
    if exists (select 1 from syncline.schedules where fired_by = 'pg_cron' and not is_paused)
        and syncline.pg_cron_state() <> 'ready'
    then
        perform syncline.sync_schedules();
    end if;
    -- Where the clock went back, what is settled is ahead of it: nothing would be due until the clock is there again.
    update syncline.schedules as ahead set settled_at = clock_timestamp()
    where ahead.settled_at > clock_timestamp() + interval '1 minute';
    return query
    select due.name, due.cron, due.zone, due.settled_at, clock_timestamp()
    from syncline.schedules as due
    where due.fired_by = 'worker' and not due.is_paused
    order by due.name;
end
$$;
comment on function syncline.schedules_to_fire() is
'The active schedules that workers fire, with the time up to which they are settled and the database''s clock.';

create or replace function syncline.pg_cron_state() returns text
language plpgsql stable security definer
set search_path to 'pg_catalog', 'pg_temp'
as $$
declare
    v_database text;
begin
    begin
        -- Null where the library is not loaded.
        v_database := current_setting('cron.database_name', true);
    exception
        when insufficient_privilege then
            v_database := case
                when exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron') then current_database()
                else ''
            end;
    end;
    if v_database is null then
        return 'absent';
    elsif v_database <> current_database() then
        return 'elsewhere';
    elsif not exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron') then
        return 'absent';
    elsif not (select rolcanlogin from pg_catalog.pg_roles where rolname = current_user)
        or not has_schema_privilege('cron', 'usage')
        or not has_table_privilege('cron.job', 'select')
        or exists (
            select 1
            from pg_catalog.pg_proc
            where pronamespace = 'cron'::regnamespace
                and oid::regprocedure::text ~ 'cron\.(schedule\(text,text,text\)|unschedule\(bigint\))'
                and not has_function_privilege(oid, 'execute')
        )
    then
        return 'no rights';
    end if;
    return 'ready';
end
$$;
comment on function syncline.pg_cron_state() is
'Whether pg_cron can fire schedules here: ready, absent (not in this database, or not loaded), elsewhere (it works in another database), no rights (of the owner of this schema).';

create or replace function syncline.reason_for_worker(p_cron text, p_zone text) returns text
language plpgsql stable security definer
set search_path to 'pg_catalog', 'pg_temp'
as $$
declare
    v_state text := syncline.pg_cron_state();
    v_fields text[] := string_to_array(p_cron, ' ');
    v_value text := '([0-9]+|[A-Za-z]{3})';
    v_item text := format('(\*(/[0-9]+)?|%1$s(-%1$s(/[0-9]+)?)?)', v_value);
    v_zones text[] := array['utc', 'etc/utc', 'gmt', 'etc/gmt'];
    v_zone text;
begin
    if v_state <> 'ready' then
        return case v_state
            when 'absent' then 'pg_cron is not in this database'
            when 'elsewhere' then 'pg_cron works in another database of this server'
            else format('the database user %I may not make jobs of pg_cron', current_user)
        end;
    end if;
    begin
        v_zone := coalesce(current_setting('cron.timezone', true), 'GMT');
    exception
        when insufficient_privilege then
            return format('the database user %I may not read cron.timezone', current_user);
    end;
    if lower(v_zone) <> lower(p_zone) and not (lower(v_zone) = any (v_zones) and lower(p_zone) = any (v_zones)) then
        return format('pg_cron goes by the time of %s', v_zone);
    elsif exists (select 1 from unnest(v_fields) as field where field !~ format('^%1$s(,%1$s)*$', v_item)) then
        return 'pg_cron does not know this expression';
    elsif v_fields[3] <> '*' and v_fields[5] <> '*' then
        -- Its setting cron.match_dom_and_dow changes what the two mean together.
        return 'pg_cron may take the day of the month and the day of the week together otherwise';
    end if;
    return null;
end
$$;
comment on function syncline.reason_for_worker(text, text) is
'Why pg_cron cannot fire a schedule with this expression in this time zone; null where it can.';

create or replace function syncline.find_jobs(p_name text default null)
returns table (job_id bigint, name text, cron text, is_ours boolean)
language plpgsql stable security definer
set search_path to 'pg_catalog', 'pg_temp'
as $$
begin
    if syncline.pg_cron_state() <> 'ready' then
        return;
    end if;
    -- The same name for another database and of another user is somebody else's.
    return query execute
        $query$
            select
                jobid,
                substr(jobname::text, 10),
                schedule,
                active
                and database = current_database()
                and username = current_user
                and command = format('select syncline.fire_schedule(%L)', substr(jobname::text, 10))
            from cron.job
            where jobname::text like 'syncline:%'
                and (database = current_database() or (username = current_user and $1 is not null))
                and ($1 is null or jobname::text = 'syncline:' || $1)
        $query$
        using p_name;
end
$$;
comment on function syncline.find_jobs(text) is
'The jobs of pg_cron for a schedule, or for all, and whether they are as Syncline makes them.';

create or replace function syncline.drop_jobs(p_name text) returns boolean
language plpgsql security definer
set search_path to 'pg_catalog', 'pg_temp'
as $$
declare
    v_job_id bigint;
    v_is_any boolean := false;
begin
    for v_job_id in select job_id from syncline.find_jobs(p_name) loop
        execute 'select cron.unschedule($1)' using v_job_id;
        v_is_any := true;
    end loop;
    return v_is_any;
end
$$;
comment on function syncline.drop_jobs(text) is 'Takes a schedule''s jobs from pg_cron; returns whether there was one.';

create or replace function syncline.link_schedule(p_name text) returns text
language plpgsql security definer
set search_path to 'pg_catalog', 'pg_temp'
as $$
declare
    v_schedule syncline.schedules;
    v_jobs integer;
    v_right_jobs integer;
    v_reason text;
    v_done text;
begin
    select * into v_schedule from syncline.schedules where name = p_name for update;
    v_reason := syncline.reason_for_worker(v_schedule.cron, v_schedule.zone);
    select count(*), count(*) filter (where is_ours and cron = v_schedule.cron) into v_jobs, v_right_jobs
    from syncline.find_jobs(p_name);
    if v_reason is null and not v_schedule.is_paused and (v_jobs, v_right_jobs) <> (1, 1) then
        begin
            perform syncline.drop_jobs(p_name);
            execute 'select cron.schedule($1, $2, $3)'
                using 'syncline:' || p_name, v_schedule.cron, format('select syncline.fire_schedule(%L)', p_name);
            v_done := case when v_jobs > 0 then 'rescheduled' else 'scheduled' end;
        exception
            when others then
                v_reason := 'pg_cron refuses it: ' || sqlerrm;
        end;
    end if;
    if (v_reason is not null or v_schedule.is_paused) and syncline.drop_jobs(p_name) then
        v_done := 'unscheduled';
    end if;
    update syncline.schedules set
        fired_by = case when v_reason is null then 'pg_cron' else 'worker' end,
        reason = v_reason
    where name = p_name;
    if v_reason is not null and v_schedule.fired_by = 'pg_cron' then
        v_done := 'fired by workers';
    end if;
    return v_done;
end
$$;
comment on function syncline.link_schedule(text) is
'Makes pg_cron''s job for a schedule what it should be: there, as it should be, or gone. Returns what was done: scheduled, rescheduled, unscheduled, fired by workers; null for nothing.';

create or replace function syncline.sync_schedules() returns table (name text, done text)
language plpgsql
as $$
declare
    v_name text;
    v_done text;
begin
    for v_name in select known.name from syncline.schedules as known order by known.name loop
        v_done := syncline.link_schedule(v_name);
        if v_done is not null then
            return query select v_name, v_done;
        end if;
    end loop;
    for v_name in
        select distinct job.name
        from syncline.find_jobs() as job
        where not exists (select 1 from syncline.schedules as known where known.name = job.name)
    loop
        perform syncline.drop_jobs(v_name);
        return query select v_name, 'unscheduled';
    end loop;
end
$$;
comment on function syncline.sync_schedules() is
'Makes pg_cron''s jobs agree with the schedules again; returns what was done: scheduled, rescheduled, unscheduled, fired by workers.';

-- What acts for the owner is not for everybody who may use the schema.
revoke execute on function syncline.pg_cron_state() from public;
revoke execute on function syncline.reason_for_worker(text, text) from public;
revoke execute on function syncline.find_jobs(text) from public;
revoke execute on function syncline.drop_jobs(text) from public;
revoke execute on function syncline.link_schedule(text) from public;

create or replace view syncline.schedule_status as
select
    schedule.name,
    schedule.cron,
    schedule.zone,
    schedule.sources,
    schedule.entities,
    schedule.options,
    schedule.max_attempts,
    schedule.timeout,
    schedule.is_paused,
    schedule.created_at,
    schedule.created_by,
    schedule.resumed_at,
    schedule.settled_at,
    schedule.last_scheduled_for,
    schedule.last_fired_at,
    schedule.last_run,
    run.status as last_status,
    schedule.missed_runs,
    schedule.last_error,
    schedule.fired_by,
    schedule.reason
from syncline.schedules as schedule
left join syncline.runs as run on schedule.last_run = run.run_id;
comment on view syncline.schedule_status is 'The schedules: when which run is asked for, who fires them, and what came of it.';
