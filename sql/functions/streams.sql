-- A stream's tables, and reading its records as they were.

create or replace function syncline.create_stream(p_source text, p_stream text) returns void
language plpgsql
as $$
declare
    v_schema text := 'raw_' || p_source;
    v_table text := p_stream || '_json';
begin
    execute format('create schema if not exists %I', v_schema);
    execute format(
        'create table if not exists %I.%I (
            _key text collate "C" not null,
            _hash uuid not null,
            _first_load bigint not null,
            _gone_load bigint,
            _ordinal bigint not null,
            payload json not null
        )', v_schema, v_table
    );
    execute format(
        'create unlogged table if not exists %I.%I (
            _ordinal bigint not null,
            _key text collate "C" not null,
            _hash uuid,
            payload json
        )',
        v_schema, p_stream || '_staged'
    );
    perform syncline.index_stream(p_source, p_stream);
    if to_regclass(format('%I.%I', v_schema, p_stream)) is null then
        -- A set-returning function in the select list is a fence: the payload is parsed once however often it is
        -- read, while conditions on _key still reach the index and parallel plans stay possible.
        execute format(
            'create view %I.%I as
            select _key, unnest(array[payload::jsonb]) as payload, _ordinal from %I.%I where _gone_load is null',
            v_schema, p_stream, v_schema, v_table
        );
        execute format('comment on view %I.%I is %L', v_schema, p_stream, 'The live records of ' || p_source || '.' || p_stream || '.');
    end if;
    insert into syncline.streams (source, stream) values (p_source, p_stream) on conflict do nothing;
end
$$;
comment on function syncline.create_stream(text, text) is
'Makes the tables and the live view of a stream where they are missing.';

create or replace function syncline.index_stream(p_source text, p_stream text) returns void
language plpgsql
as $$
declare
    v_schema text := 'raw_' || p_source;
    v_table text := p_stream || '_json';
begin
    execute format(
        'create unique index if not exists %I on %I.%I (_key) where _gone_load is null',
        v_table || '_live', v_schema, v_table
    );
    execute format(
        'create index if not exists %I on %I.%I (_first_load)', v_table || '_first', v_schema, v_table
    );
    execute format(
        'create index if not exists %I on %I.%I (_gone_load) where _gone_load is not null',
        v_table || '_gone', v_schema, v_table
    );
end
$$;
comment on function syncline.index_stream(text, text) is 'Makes the indexes of a stream''s table where they are missing.';

create or replace function syncline.records(p_source text, p_stream text, p_load_id bigint)
returns table (_key text, payload jsonb, _ordinal bigint)
language plpgsql stable
as $$
begin
    if p_load_id <= (
        select pruned_through from syncline.streams where source = p_source and stream = p_stream
    ) then
        raise exception using
            errcode = 'SY102',
            message = format('load %s of %s.%s was pruned', p_load_id, p_source, p_stream),
            hint = 'Raise the stream''s `keep` to read further back.';
    end if;
    return query execute format(
        'select _key, payload::jsonb, _ordinal from %I.%I
        where _first_load <= $1 and (_gone_load is null or _gone_load > $1)',
        'raw_' || p_source, p_stream || '_json'
    ) using p_load_id;
end
$$;
comment on function syncline.records(text, text, bigint) is
'The records of a stream as they were after the given load; raises SY102 where it was pruned.';

create or replace function syncline.last_load(p_source text, p_stream text) returns bigint
language sql stable
as $$ select last_load from syncline.streams where source = p_source and stream = p_stream $$;
comment on function syncline.last_load(text, text) is 'The newest load of a stream; null where it was never loaded.';

create or replace function syncline.prune_stream(p_source text, p_stream text, p_keep integer, p_max_age interval default '30 days')
returns bigint
language plpgsql
as $$
declare
    v_horizon bigint;
    v_pruned bigint;
begin
    perform syncline.hold_run();
    perform pg_advisory_xact_lock(syncline.lock_class('stream'), hashtext(p_source || '.' || p_stream));
    -- Reading load n needs every revision gone after n, so what was gone by the horizon itself can go.
    select min(load_id) into v_horizon
    from (
        select load_id
        from syncline.loads
        where source = p_source and stream = p_stream
        order by load_id desc
        limit p_keep
    ) as kept;
    select least(v_horizon, min((builds.loads ->> (p_source || '.' || p_stream))::bigint)) into v_horizon
    from syncline.builds
    where builds.state in ('built', 'failed', 'checked', 'trial', 'current', 'retired')
        and builds.created_at > clock_timestamp() - p_max_age
        and builds.loads ? (p_source || '.' || p_stream);
    select least(v_horizon, min((running.pinned_loads ->> (p_source || '.' || p_stream))::bigint)) into v_horizon
    from syncline.runs as running
    where running.status = 'running';
    if v_horizon is null then
        return 0;
    end if;
    execute format('delete from %I.%I where _gone_load <= $1', 'raw_' || p_source, p_stream || '_json') using v_horizon;
    get diagnostics v_pruned = row_count;
    if v_pruned > 0 then
        update syncline.streams set pruned_through = greatest(pruned_through, v_horizon - 1)
        where source = p_source and stream = p_stream;
    end if;
    return v_pruned;
end
$$;
comment on function syncline.prune_stream(text, text, integer, interval) is
'Deletes the revisions that none of the last `p_keep` loads shows and that no version of an entity was built from within `p_max_age`. Returns their number.';

create or replace function syncline.reset_cursor(p_source text, p_stream text) returns void
language plpgsql
as $$
begin
    perform pg_advisory_xact_lock(syncline.lock_class('stream'), hashtext(p_source || '.' || p_stream));
    update syncline.streams set cursor = null, unfinished = null where source = p_source and stream = p_stream;
    if not found then
        raise exception using
            errcode = 'SY201',
            message = format('there is no stream %s.%s in the database', p_source, p_stream),
            hint = 'Run `syncline migrate`, or look at `syncline status` for the known ones.';
    end if;
end
$$;
comment on function syncline.reset_cursor(text, text) is 'Makes the stream''s next increment start from the beginning.';

create or replace function syncline.declare_streams(p_labels text[]) returns void
language sql
as $$
    update syncline.streams set is_declared = source || '.' || stream = any (p_labels)
    where is_declared is distinct from (source || '.' || stream = any (p_labels))
$$;
comment on function syncline.declare_streams(text[]) is
'Notes which streams (source.stream) the project declares: a run of all sources is a run of these.';
