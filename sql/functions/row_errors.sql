-- Row errors: saved with the records that loads rejected, shown, replayed, and forgotten.

create or replace function syncline.save_row_errors(p_load syncline.loads, p_facts jsonb) returns void
language plpgsql
as $$
begin
    -- A record that is bad again has one open error, not one for each load that brought it.
    update syncline.row_errors as old set closed_at = clock_timestamp()
    from jsonb_to_recordset(p_facts -> 'row_errors') as new (_key text)
    where old.source = p_load.source and old.stream = p_load.stream and old._key = new._key
        and old.closed_at is null and old.load_id < p_load.load_id;
    with given as materialized (
        select nextval(pg_get_serial_sequence('syncline.row_errors', 'error_id')) as error_id, e.*
        from jsonb_to_recordset(p_facts -> 'row_errors') as e (
            _key text, row_number bigint, path text, value text, message text, severity text, record text,
            is_readable boolean
        )
    ),

    saved as (
        insert into syncline.row_errors (
            error_id, run_id, load_id, source, stream, _key, row_number, path, value, message, severity
        ) overriding system value
        select
            error_id, syncline.session_run(), p_load.load_id, p_load.source, p_load.stream, _key, row_number, path,
            value, message, coalesce(severity, 'error')
        from given
    )

    insert into syncline.rejected_records (error_id, record, is_readable)
    select error_id, decode(record, 'base64'), coalesce(is_readable, true)
    from given
    where record is not null;
    perform syncline.forget_records(
        p_load.source, p_load.stream, coalesce((p_facts ->> 'is_redacted')::boolean, false)
    );
end
$$;
comment on function syncline.save_row_errors(syncline.loads, jsonb) is
'Saves the row errors of a load with the records it rejected; older errors of the same keys are closed.';

create or replace function syncline.forget_records(p_source text, p_stream text, p_is_redacted boolean) returns void
language sql
as $$
    -- A stream without full loads never closes the errors of records whose keys cannot be read.
    update syncline.row_errors as old set closed_at = clock_timestamp(), note = 'the stream has 100,000 newer ones'
    where old.error_id in (
        select error_id
        from syncline.row_errors
        where source = p_source and stream = p_stream and load_id is not null and closed_at is null
        order by error_id desc
        offset 100000
    );
    delete from syncline.rejected_records as kept
    using (
        select
            record.error_id,
            bad.closed_at is not null as is_closed,
            sum(octet_length(record.record)) over (order by record.error_id desc) as bytes
        from syncline.rejected_records as record
        inner join syncline.row_errors as bad on record.error_id = bad.error_id
        where bad.source = p_source and bad.stream = p_stream
    ) as found
    where kept.error_id = found.error_id
        and (found.is_closed or p_is_redacted or found.bytes > 64 * 1024 * 1024)
$$;
comment on function syncline.forget_records(text, text, boolean) is
'Deletes the kept records of a stream whose errors are closed, the oldest beyond 64 MiB, and all where the stream is redacted. Closes the oldest of more than 100,000 errors.';

create or replace function syncline.errors_to_replay(p_replay jsonb) returns setof syncline.row_errors
language sql stable
as $$
    select bad.*
    from syncline.row_errors as bad
    where bad.closed_at is null
        and (
            not p_replay ? 'errors'
            or bad.error_id = any (array(select jsonb_array_elements_text(p_replay -> 'errors')::bigint))
        )
        and (not p_replay ? 'entity' or bad.entity = p_replay ->> 'entity')
        and (not p_replay ? 'stream' or p_replay ->> 'stream' in (bad.stream, bad.source || '.' || bad.stream))
        and (not p_replay ? 'run' or bad.run_id = (p_replay ->> 'run')::bigint)
$$;
comment on function syncline.errors_to_replay(jsonb) is
'The open row errors that a replay names: by `errors`, `entity`, `stream`, `run`, or `all`.';

create or replace function syncline.is_replayable(p_error syncline.row_errors) returns boolean
language sql stable
as $$
    select case
        when p_error.load_id is null then p_error.entity is not null and p_error._key is not null
        else exists (
            select 1 from syncline.rejected_records as kept where kept.error_id = p_error.error_id and kept.is_readable
        )
    end
$$;
comment on function syncline.is_replayable(syncline.row_errors) is
'Whether there is something to replay: the kept record of a load, or the key that a model did not take.';

create or replace function syncline.check_replay(p_replay jsonb) returns void
language plpgsql stable
as $$
declare
    v_error syncline.row_errors;
    v_error_id bigint;
    v_gone text;
begin
    if not p_replay ?| array['errors', 'entity', 'stream', 'run', 'all'] then
        raise exception using
            errcode = 'SY252',
            message = 'a replay has to say which row errors',
            hint = 'Name errors by their numbers, or by --entity, --stream or --run, or ask for all of them: --all.';
    end if;
    perform syncline.check_reported(p_replay ->> 'entity', p_replay ->> 'stream', (p_replay ->> 'run')::bigint);
    for v_error_id in select jsonb_array_elements_text(p_replay -> 'errors')::bigint loop
        select * into v_error from syncline.row_errors where error_id = v_error_id;
        if not found then
            perform syncline.raise_unknown_error(v_error_id);
        elsif v_error.closed_at is not null then
            raise exception using
                errcode = 'SY350',
                message = format('row error %s is closed already', v_error_id),
                hint = coalesce(
                    format('Row error %s is open now, of the same key.', syncline.newer_error(v_error)),
                    '`syncline errors` lists those that are open.'
                );
        elsif not syncline.is_replayable(v_error) then
            raise exception using
                errcode = 'SY351',
                message = format('there is nothing to replay for row error %s: %s', v_error_id, syncline.why_left(v_error)),
                hint = 'Records are not kept of streams with `redact`, nor those that are too large, and what could not be read is only shown: mend the source, and load it again.';
        end if;
    end loop;
    select string_agg(distinct bad.source || '.' || bad.stream, ', ') into v_gone
    from syncline.errors_to_replay(p_replay) as bad
    inner join syncline.streams as known on bad.source = known.source and bad.stream = known.stream
    where (p_replay ? 'errors' or p_replay ? 'stream') and bad.load_id is not null and not known.is_declared;
    if v_gone is not null then
        raise exception using
            errcode = 'SY251',
            message = format('the project does not declare %s any more', v_gone),
            hint = 'Declare it again, or drop it for good: select syncline.drop_stream(SOURCE, STREAM).';
    end if;
end
$$;
comment on function syncline.check_replay(jsonb) is
'Raises SY252 where a replay names nothing, SY250 for an unknown error, SY350 for a closed one, SY351 for one whose record was not kept or could not be read, SY251 for a stream that is gone.';

create or replace function syncline.newer_error(p_error syncline.row_errors) returns bigint
language sql stable
as $$
    select max(bad.error_id)
    from syncline.row_errors as bad
    where bad.closed_at is null and bad._key = p_error._key
        and (bad.load_id is null) = (p_error.load_id is null)
        and case
            when p_error.load_id is null then bad.entity = p_error.entity
            else bad.source = p_error.source and bad.stream = p_error.stream
        end
        and coalesce(bad.column_name, bad.path) is not distinct from coalesce(p_error.column_name, p_error.path)
$$;
comment on function syncline.newer_error(syncline.row_errors) is
'The open row error of the same key and column as one that is closed; null where there is none.';

create or replace function syncline.why_left(p_error syncline.row_errors) returns text
language sql stable
as $$
    select case
        when p_error.load_id is not null and not exists (
            select 1 from syncline.streams as known
            where known.source = p_error.source and known.stream = p_error.stream and known.is_declared
        ) then format('the project does not declare %s.%s any more', p_error.source, p_error.stream)
        when exists (
            select 1 from syncline.rejected_records as kept where kept.error_id = p_error.error_id and not kept.is_readable
        ) then 'its record could not be read'
        when p_error.load_id is not null then 'its record was not kept'
        when p_error.entity is null or p_error._key is null then 'its key is not known'
        else format('%s, or what it reads, is gone from the project', p_error.entity)
    end
$$;
comment on function syncline.why_left(syncline.row_errors) is 'Why a replay leaves a row error as it is.';

create or replace function syncline.errors_left(p_replay jsonb, p_run_id bigint default null)
returns table (reason text, errors bigint)
language sql stable
as $$
    select syncline.why_left(bad), count(*)
    from syncline.row_errors as bad
    where case
        when p_run_id is null then bad.error_id in (select wanted.error_id from syncline.errors_to_replay(p_replay) as wanted)
        else exists (
            select 1 from syncline.replayed_errors as replayed
            where replayed.run_id = p_run_id and replayed.error_id = bad.error_id and replayed.outcome = 'left'
        )
    end
    group by 1
    order by 1
$$;
comment on function syncline.errors_left(jsonb, bigint) is
'How many row errors a replay left as they are, and why; without a run, of one that had nothing to replay.';

create or replace function syncline.raise_unknown_error(p_error_id bigint) returns void
language plpgsql
as $$
begin
    raise exception using
        errcode = 'SY250',
        message = format('there is no row error %s', p_error_id),
        hint = '`syncline errors` lists those that are open; closed ones are kept as long as `keep_errors` says.';
end
$$;
comment on function syncline.raise_unknown_error(bigint) is 'Raises SY250: there is no such row error.';

create or replace function syncline.replay_sources(p_replay jsonb) returns text[]
language plpgsql stable
as $$
declare
    v_sources text[];
begin
    perform syncline.check_replay(p_replay);
    with recursive chosen as materialized (
        select * from syncline.errors_to_replay(p_replay) as bad where syncline.is_replayable(bad)
    ),

    feeding as (
        select entity from chosen where load_id is null
        union
        select input.entity
        from feeding
        cross join lateral (
            select inputs from syncline.builds as b where b.entity = feeding.entity order by build_id desc limit 1
        ) as newest
        cross join lateral jsonb_object_keys(newest.inputs) as input (entity)
    )

    select syncline.sorted(array_agg(found.source)) into v_sources
    from (
        select source from chosen where load_id is not null
        union
        select split_part(label, '.', 1)
        from feeding
        cross join lateral (
            select loads from syncline.builds as b where b.entity = feeding.entity order by build_id desc limit 1
        ) as newest
        cross join lateral jsonb_object_keys(newest.loads) as label
    ) as found
    where exists (select 1 from syncline.streams as known where known.source = found.source and known.is_declared);
    return coalesce(v_sources, '{}');
end
$$;
comment on function syncline.replay_sources(jsonb) is
'The sources that a replay is about, empty where there is nothing to replay; raises what check_replay does.';

create or replace function syncline.replay_errors(
    p_errors bigint[] default null,
    p_entity text default null,
    p_stream text default null,
    p_run_id bigint default null,
    p_is_all boolean default false,
    p_trigger text default 'manual',
    p_triggered_by text default null,
    p_request_id text default null,
    p_max_attempts integer default 3
) returns bigint
language plpgsql
as $$
declare
    v_replay jsonb := jsonb_strip_nulls(jsonb_build_object(
        'errors', to_jsonb(p_errors), 'entity', p_entity, 'stream', p_stream, 'run', p_run_id,
        'all', case when p_is_all then true end
    ));
    v_sources text[] := syncline.replay_sources(v_replay);
begin
    if cardinality(v_sources) = 0 then
        raise exception using
            errcode = 'SY350',
            message = 'there is nothing to replay: no such row error is open, or no record was kept',
            hint = '`syncline errors` lists those that are open.';
    end if;
    return syncline.request_run(
        v_sources, '{}', jsonb_build_object('replay', v_replay), p_trigger, p_triggered_by, p_request_id, p_max_attempts
    );
end
$$;
comment on function syncline.replay_errors(
    bigint[], text, text, bigint, boolean, text, text, text, integer
) is
'Requests a run that tries rejected records again: those of these errors, of an entity, a stream or a run, or all. Returns its number; raises SY350 where there is nothing to replay, and what check_replay does.';

create or replace function syncline.begin_replay(p_entities text[]) returns jsonb
language plpgsql
as $$
declare
    v_run_id bigint := syncline.session_run();
    v_replay jsonb := (select options -> 'replay' from syncline.runs where run_id = v_run_id);
    v_gone text;
begin
    perform syncline.hold_run();
    select string_agg(distinct bad.entity, ', ') into v_gone
    from syncline.errors_to_replay(v_replay) as bad
    where (v_replay ? 'errors' or v_replay ? 'entity') and bad.load_id is null and bad.entity <> all (p_entities);
    if v_gone is not null then
        raise exception using
            errcode = 'SY251',
            message = format('the project has no entity %s any more', v_gone),
            hint = 'Bring its model back, or drop it for good: select syncline.drop_entity(ENTITY).';
    end if;
    insert into syncline.replayed_errors (run_id, error_id, outcome)
    select
        v_run_id,
        bad.error_id,
        case when not syncline.is_replayable(bad)
            or (bad.load_id is null and bad.entity <> all (p_entities))
            or (bad.load_id is not null and not known.is_declared)
            then 'left'
        end
    from syncline.errors_to_replay(v_replay) as bad
    left join syncline.streams as known on bad.source = known.source and bad.stream = known.stream
    on conflict (run_id, error_id) do update set outcome = excluded.outcome;
    perform syncline.touch(bad.entity, array_agg(distinct bad._key))
    from syncline.replayed_errors as replayed
    inner join syncline.row_errors as bad on replayed.error_id = bad.error_id
    where replayed.run_id = v_run_id and replayed.outcome is null and bad.load_id is null
    group by bad.entity;
    return (
        select jsonb_build_object(
            'streams', coalesce(
                jsonb_agg(distinct jsonb_build_object(
                    'source', bad.source, 'stream', bad.stream, 'key', to_jsonb(known.key_fields)
                )) filter (where bad.load_id is not null), '[]'
            ),
            'entities', coalesce(jsonb_agg(distinct bad.entity) filter (where bad.load_id is null), '[]')
        )
        from syncline.replayed_errors as replayed
        inner join syncline.row_errors as bad on replayed.error_id = bad.error_id
        left join syncline.streams as known on bad.source = known.source and bad.stream = known.stream
        where replayed.run_id = v_run_id and replayed.outcome is null
    );
end
$$;
comment on function syncline.begin_replay(text[]) is
'Notes which row errors the session''s run replays, and touches the keys that models did not take; returns the streams whose records are to be loaded and the entities to be built. Raises SY251 for an entity that is none of the project''s.';

create or replace function syncline.kept_records(p_source text, p_stream text)
returns table (error_id bigint, load_id bigint, row_number bigint, record bytea)
language sql stable
as $$
    select bad.error_id, bad.load_id, bad.row_number, kept.record
    from syncline.replayed_errors as replayed
    inner join syncline.row_errors as bad on replayed.error_id = bad.error_id
    inner join syncline.rejected_records as kept on bad.error_id = kept.error_id
    where replayed.run_id = syncline.session_run() and replayed.outcome is null and bad.closed_at is null
        and bad.source = p_source and bad.stream = p_stream
    order by bad.load_id, bad.row_number, bad.error_id
$$;
comment on function syncline.kept_records(text, text) is
'The rejected records of a stream that the session''s run replays, the oldest first.';

create or replace function syncline.outrun_errors(p_source text, p_stream text, p_records jsonb) returns setof bigint
language plpgsql stable
as $$
begin
    -- One that was gone by a later load is newer too: what was deleted since does not come back.
    return query execute format(
        'with wanted as materialized (
            select * from jsonb_to_recordset($1) as r (error_id bigint, _key text, load_id bigint, row_number bigint)
        )
        select wanted.error_id
        from wanted
        inner join %1$s as live on live._key = wanted._key and live._gone_load is null
        where (live._first_load, live._ordinal) > (wanted.load_id, wanted.row_number)
        union
        select wanted.error_id
        from wanted
        inner join %1$s as gone on gone._key = wanted._key
        where gone._gone_load > (select min(load_id) from wanted) and gone._gone_load > wanted.load_id',
        format('%I.%I', 'raw_' || p_source, p_stream || '_json')
    ) using p_records;
end
$$;
comment on function syncline.outrun_errors(text, text, jsonb) is
'Of records that were rejected ({error_id, _key, load_id, row_number}), those whose key came again, or went, since.';

create or replace function syncline.later_records(p_source text, p_stream text, p_keys text[])
returns table (_key text, _hash uuid, _ordinal bigint)
language plpgsql stable
as $$
begin
    return query execute format(
        'select live._key, live._hash, null::bigint from %1$I.%2$I as live
        where live._gone_load is null and live._key = any ($1)
        union all
        select staged._key, null, staged._ordinal from %1$I.%3$I as staged where staged._key = any ($1)',
        'raw_' || p_source, p_stream || '_json', p_stream || '_staged'
    ) using p_keys;
end
$$;
comment on function syncline.later_records(text, text, text[]) is
'Where a load has good records for these keys: what it staged, with the place, and the hashes of what is live.';

create or replace function syncline.settle_replay(p_outcomes jsonb) returns void
language sql
as $$
    select syncline.hold_run();
    update syncline.replayed_errors as replayed set outcome = o.outcome
    from jsonb_to_recordset(p_outcomes) as o (error_id bigint, outcome text)
    where replayed.run_id = syncline.session_run() and replayed.error_id = o.error_id;
    -- The load itself closes errors by key; it has not told why.
    update syncline.row_errors as bad set
        closed_at = case when o.outcome in ('fine', 'outrun') then coalesce(bad.closed_at, clock_timestamp()) end,
        note = case o.outcome when 'outrun' then 'not replayed: its key came again, or went, since' end,
        message = coalesce(o.message, bad.message),
        _key = coalesce(o._key, bad._key)
    from jsonb_to_recordset(p_outcomes) as o (error_id bigint, outcome text, message text, _key text)
    where bad.error_id = o.error_id;
    -- A key that is known only now may have a newer error already: one record has one.
    with doubled as (
        update syncline.row_errors as bad set closed_at = clock_timestamp(), note = 'its key was rejected again since'
        from jsonb_to_recordset(p_outcomes) as o (error_id bigint, outcome text)
        where bad.error_id = o.error_id and o.outcome = 'bad' and exists (
            select 1
            from syncline.row_errors as newer
            where newer.source = bad.source and newer.stream = bad.stream and newer._key = bad._key
                and newer.load_id > bad.load_id and newer.severity = 'error' and newer.closed_at is null
        )
        returning bad.error_id
    )

    update syncline.replayed_errors as replayed set outcome = 'outrun'
    from doubled
    where replayed.run_id = syncline.session_run() and replayed.error_id = doubled.error_id;
    delete from syncline.rejected_records as kept
    using jsonb_to_recordset(p_outcomes) as o (error_id bigint), syncline.row_errors as bad
    where kept.error_id = o.error_id and bad.error_id = o.error_id and bad.closed_at is not null
$$;
comment on function syncline.settle_replay(jsonb) is
'Notes what became of records that were loaded again ({error_id, outcome, message, _key}): closes the errors of those that got in or were outrun; the others stay open, one for each key.';

create or replace function syncline.finish_replay() returns void
language plpgsql
as $$
declare
    v_run_id bigint := syncline.session_run();
begin
    perform syncline.hold_run();
    update syncline.replayed_errors as replayed set
        outcome = case when bad.closed_at is null or exists (
            select 1
            from syncline.row_errors as again
            where again.entity = bad.entity and again._key = bad._key and again.closed_at is null
                and (again.severity = 'error' or again.path = bad.path)
        ) then 'bad' else 'fine' end
    from syncline.row_errors as bad
    where replayed.run_id = v_run_id and replayed.outcome is null and replayed.error_id = bad.error_id;
    perform syncline.log('info', 'errors_replayed', syncline.replay_report(v_run_id));
end
$$;
comment on function syncline.finish_replay() is
'Notes what became of the keys that models did not take, after they were built anew, and logs the counts.';

create or replace function syncline.replay_report(p_run_id bigint) returns jsonb
language sql stable
as $$
    select jsonb_build_object(
        'run_id', p_run_id,
        'replayed', count(*) filter (where outcome in ('fine', 'bad')),
        'fine', count(*) filter (where outcome = 'fine'),
        'bad', count(*) filter (where outcome = 'bad'),
        'outrun', count(*) filter (where outcome = 'outrun'),
        'left', count(*) filter (where outcome = 'left'),
        'unsettled', count(*) filter (where outcome is null)
    )
    from syncline.replayed_errors
    where run_id = p_run_id
$$;
comment on function syncline.replay_report(bigint) is
'What became of the row errors that a run replayed, as counts: replayed, of these fine and bad; outrun, left, and unsettled where the run failed before it could tell.';

create or replace function syncline.row_error(p_error_id bigint) returns jsonb
language plpgsql stable
as $$
declare
    v_found jsonb;
begin
    select
        jsonb_build_object(
            'error_id', bad.error_id,
            'severity', bad.severity,
            'message', bad.message,
            'note', bad.note,
            'stream', bad.source || '.' || bad.stream,
            'entity', bad.entity,
            '_key', bad._key,
            'row_number', bad.row_number,
            'column_name', bad.column_name,
            'path', bad.path,
            'type', bad.type,
            'value', bad.value,
            'run_id', bad.run_id,
            'load_id', bad.load_id,
            'build_id', bad.build_id,
            'created_at', bad.created_at,
            'closed_at', bad.closed_at,
            'is_replayable', bad.closed_at is null and syncline.is_replayable(bad),
            'replays', coalesce((
                select jsonb_agg(
                    jsonb_build_object('run_id', replayed.run_id, 'outcome', replayed.outcome) order by replayed.run_id
                )
                from syncline.replayed_errors as replayed
                where replayed.error_id = bad.error_id
            ), '[]')
        )
    into v_found
    from syncline.row_errors as bad
    where bad.error_id = p_error_id;
    if not found then
        perform syncline.raise_unknown_error(p_error_id);
    end if;
    return v_found;
end
$$;
comment on function syncline.row_error(bigint) is 'All that is known of one row error, but its record; raises SY250 where there is none.';

create or replace function syncline.rejected_record(p_error_id bigint) returns bytea
language plpgsql stable
as $$
declare
    v_error syncline.row_errors;
    v_table text;
    v_record bytea;
begin
    select * into v_error from syncline.row_errors where error_id = p_error_id;
    select substring(record for 1048576) into v_record from syncline.rejected_records where error_id = p_error_id;
    v_table := format('%I.%I', 'raw_' || v_error.source, v_error.stream || '_json');
    if v_record is null and v_error.load_id is null and to_regclass(v_table) is not null then
        execute format(
            'select convert_to(left(payload::text, 1048576), ''UTF8'') from %s where _key = $1 and _gone_load is null', v_table
        )
        into v_record
        using v_error._key;
    end if;
    return v_record;
end
$$;
comment on function syncline.rejected_record(bigint) is
'The record of a row error, up to 1 MiB: the one that its load rejected, or the live one that its model did not take. Null where it was not kept, or is gone.';

create or replace function syncline.prune_errors(p_age interval default '30 days') returns bigint
language sql
as $$
    with pruned as (
        delete from syncline.row_errors where closed_at < clock_timestamp() - p_age returning 1
    )

    select count(*) from pruned
$$;
comment on function syncline.prune_errors(interval) is 'Deletes row errors that were closed longer ago than this; returns how many.';
