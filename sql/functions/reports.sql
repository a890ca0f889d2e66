-- What people and programs ask: status, reports, row errors, proofs.

create or replace function syncline.run_kind(p_options jsonb) returns text
language sql immutable
as $$
    select case
        when p_options ? 'limit' then 'trial'
        when (p_options ->> 'dry_run')::boolean then 'dry run'
        when p_options ? 'push' then 'push'
        when p_options ? 'adopt' then 'adopt'
        when p_options ? 'replay' then 'replay'
        when p_options -> 'steps' = '["load"]' then 'load'
        when p_options ? 'steps' then 'build'
        else 'sync'
    end
$$;
comment on function syncline.run_kind(jsonb) is
'What kind of run these options ask for: sync, load, build, push, adopt, replay, dry run or trial.';

create or replace view syncline.run_objects as
select
    run.run_id,
    jsonb_build_object(
        'run_id', run.run_id,
        'status', run.status,
        'kind', syncline.run_kind(run.options),
        'trigger', run.trigger,
        'triggered_by', run.triggered_by,
        'request_id', run.request_id,
        'sources', to_jsonb(run.sources),
        'entities_asked_for', to_jsonb(run.entities),
        'options', run.options,
        'schedule', run.schedule,
        'retry_of', run.retry_of,
        'attempt', run.attempt,
        'max_attempts', run.max_attempts,
        'requested_at', run.requested_at,
        'due_at', case when run.status = 'queued' then run.due_at end,
        'is_cancelling', run.status = 'running' and exists (select 1 from syncline.cancellations as stop where stop.run_id = run.run_id),
        'started_at', run.started_at,
        'finished_at', run.finished_at,
        'duration_ms', round(extract(epoch from coalesce(run.finished_at, clock_timestamp()) - run.started_at) * 1000),
        'steps', coalesce((
            select jsonb_agg(jsonb_build_object(
                'name', step.step,
                'status', step.status,
                'duration_ms', round(extract(epoch from coalesce(step.finished_at, clock_timestamp()) - step.started_at) * 1000)
            ) order by step.started_at)
            from syncline.steps as step
            where step.run_id = run.run_id and step.attempt = run.attempt
        ), '[]'),
        'streams', coalesce((
            select jsonb_object_agg(load.source || '.' || load.stream, jsonb_build_object(
                'load_id', load.load_id,
                'kind', load.kind,
                'read', load.records_read,
                'new', load.records_new,
                'changed', load.records_changed,
                'gone', load.records_gone,
                'rejected', load.records_rejected,
                'closes', load.is_closing
            ))
            from syncline.loads as load
            where load.run_id = run.run_id
        ), '{}'),
        'entities', coalesce((
            select jsonb_object_agg(result.entity, jsonb_build_object(
                'inserted', result.rows_inserted,
                'updated', result.rows_updated,
                'deleted', result.rows_deleted,
                'unchanged', result.rows_unchanged,
                'rejected', result.keys_rejected,
                'conflicts', result.conflicts_found,
                'rows', result.rows_total,
                'version', result.version,
                'state', coalesce((
                    select b.state from syncline.builds as b
                    where b.run_id = run.run_id and b.attempt = run.attempt and b.entity = result.entity
                    order by b.build_id desc
                    limit 1
                ), 'unchanged')
            ))
            from syncline.results as result
            where result.run_id = run.run_id and result.attempt = run.attempt
        ), '{}'),
        'row_errors', (select count(*) from syncline.row_errors as bad where bad.run_id = run.run_id),
        'errors', case when run.error is null then '[]' else jsonb_build_array(run.error) end
    ) as report
from syncline.runs as run;
comment on view syncline.run_objects is 'Each run as one object: what `syncline run --json` prints.';

create or replace function syncline.run_report(p_run_id bigint) returns jsonb
language sql stable
as $$ select report from syncline.run_objects where run_id = p_run_id $$;
comment on function syncline.run_report(bigint) is 'A run as one object: what `syncline run --json` prints.';

create or replace function syncline.run_reports(
    p_limit integer default 20,
    p_statuses text[] default null,
    p_triggers text[] default null,
    p_source text default null,
    p_kinds text[] default null,
    p_before bigint default null
) returns setof jsonb
language sql stable
as $$
    -- Only the objects that are wanted are made: `offset 0` keeps the planner from making all and joining them.
    select made.report
    from (
        select run_id
        from syncline.runs
        where (p_statuses is null or status = any (p_statuses))
            and (p_triggers is null or trigger = any (p_triggers))
            and (p_source is null or p_source = any (sources))
            and (p_kinds is null or syncline.run_kind(options) = any (p_kinds))
            and (p_before is null or run_id < p_before)
        order by run_id desc
        limit p_limit
    ) as newest
    cross join lateral (select report from syncline.run_objects as o where o.run_id = newest.run_id offset 0) as made
    order by newest.run_id desc
$$;
comment on function syncline.run_reports(integer, text[], text[], text, text[], bigint) is
'The newest runs, newest first: of these statuses, triggers, source and kinds, before the one numbered.';

create or replace view syncline.entity_status as
select
    e.entity,
    e.schema_name,
    e.current_version,
    current_build.rows_total,
    published.published_at,
    e.held_at,
    candidate.state as candidate_state,
    candidate.build_id as candidate_build,
    exists ( -- noqa: LT01
        select 1 from syncline.builds as older
        where older.entity = e.entity and older.state = 'retired'
    ) as can_roll_back,
    (
        select count(*) from syncline.row_errors as bad
        where bad.entity = e.entity and bad.closed_at is null
    ) as open_errors,
    (
        select count(*) from syncline.conflicts as c
        where c.entity = e.entity and c.state = 'open'
    ) as open_conflicts
from syncline.entities as e
left join syncline.builds as current_build on e.current_build = current_build.build_id
left join syncline.publications as published on current_build.publication_id = published.publication_id
left join syncline.builds as candidate on e.next_build = candidate.build_id;
comment on view syncline.entity_status is 'Each entity: what is published, since when, what waits, what is wrong.';

create or replace view syncline.stream_status as
select
    s.source,
    s.stream,
    s.last_load,
    s.live_records,
    s.cursor,
    l.finished_at as loaded_at,
    l.kind,
    l.records_rejected,
    (
        select count(*) from syncline.row_errors as bad
        where bad.source = s.source and bad.stream = s.stream and bad.load_id is not null and bad.closed_at is null
    ) as open_errors
from syncline.streams as s
left join syncline.loads as l on s.last_load = l.load_id;
comment on view syncline.stream_status is 'Each stream: its newest load, how many records are live, where its cursor stands.';

create or replace function syncline.list_errors(
    p_entity text default null, p_stream text default null, p_run_id bigint default null, p_limit bigint default null
) returns table (
    error_id bigint,
    run_id bigint,
    stream text,
    entity text,
    _key text,
    row_number bigint,
    column_name text,
    value text,
    message text,
    severity text,
    created_at timestamptz
)
language sql stable
as $$
    select
        bad.error_id,
        bad.run_id,
        bad.source || '.' || bad.stream,
        bad.entity,
        bad._key,
        bad.row_number,
        coalesce(bad.column_name, bad.path),
        bad.value,
        bad.message,
        bad.severity,
        bad.created_at
    from syncline.row_errors as bad
    where (p_entity is null or bad.entity = p_entity)
        and (p_stream is null or p_stream in (bad.stream, bad.source || '.' || bad.stream))
        and case when p_run_id is null then bad.closed_at is null else bad.run_id = p_run_id end
    order by bad.severity, bad.entity, bad.source, bad.stream, bad.row_number, bad.error_id
    limit p_limit
$$;
comment on function syncline.list_errors(text, text, bigint, bigint) is
'The row errors that still hold, their records came no better since; with a run, all that it met.';

create or replace function syncline.check_reported(p_entity text, p_stream text, p_run_id bigint) returns void
language plpgsql stable
as $$
declare
    v_wrong text := case
        when p_entity is not null and not exists (select 1 from syncline.entities where entity = p_entity) then 'entity'
        when p_stream is not null and not exists (
            select 1 from syncline.streams where p_stream in (stream, source || '.' || stream)
        ) then 'stream'
        when p_run_id is not null and not exists (select 1 from syncline.runs where run_id = p_run_id) then 'run'
    end;
begin
    if v_wrong is not null then
        raise exception using
            errcode = 'SY201',
            message = format('there is no %s %s', v_wrong, case v_wrong when 'entity' then p_entity when 'stream' then p_stream else p_run_id::text end),
            hint = case v_wrong
                when 'entity' then 'Entities that were built: '
                    || coalesce((select string_agg(entity, ', ' order by entity) from syncline.entities), 'none') || '.'
                when 'stream' then 'Known streams: '
                    || coalesce((select string_agg(source || '.' || stream, ', ' order by source, stream) from syncline.streams), 'none') || '.'
                else format('The newest run is %s: see `syncline runs`.', coalesce((select max(run_id)::text from syncline.runs), 'none'))
            end;
    end if;
end
$$;
comment on function syncline.check_reported(text, text, bigint) is
'Raises SY201 for an entity, a stream or a run that there is not, with those that there are.';
