-- The versioned build: from the records of changed keys to the inactive version.
--
-- A build works in a schema of its own, syncline_<entity>, which exists only inside its transaction. There
-- `changed` holds the keys to look at, `rows` what the model makes of them, `base` is the active version (A) in
-- the model's columns, and `differing` the keys whose rows come out otherwise than in A.

create or replace function syncline.engine_version() returns integer
language sql immutable parallel safe
as $$ select 1 $$;
comment on function syncline.engine_version() is
'Rises when the macros and these functions must change together; a project''s macros carry theirs.';

create or replace function syncline.build(p_spec jsonb) returns bigint
language plpgsql
as $$
declare
    v_state text;
    v_message text;
    v_hint text;
begin
    if (p_spec ->> 'engine')::integer <> syncline.engine_version() then
        raise exception using
            errcode = 'SY211',
            message = format(
                'the project''s macros are of engine %s, the control schema is of %s',
                p_spec ->> 'engine', syncline.engine_version()
            ),
            hint = 'Run `syncline init --upgrade`, or upgrade the package where the schema is the newer one.';
    end if;
    return syncline.build_version(p_spec);
exception when others then
    get stacked diagnostics v_state = returned_sqlstate, v_message = message_text, v_hint = pg_exception_hint;
    -- The texts of these classes quote values; those of the others name objects.
    if left(v_state, 2) in ('22', '23', 'P0', 'XX') then
        raise exception using
            errcode = 'SY204',
            message = format('the SQL of %s failed on a value (SQLSTATE %s)', p_spec ->> 'entity', v_state),
            detail = 'SQLSTATE SY204',
            hint = 'Convert with typed(), which turns a value that does not fit into a row error.';
    end if;
    -- The detail carries the state through dbt, which passes texts on and nothing else.
    raise exception using errcode = v_state, message = v_message, detail = 'SQLSTATE ' || v_state, hint = v_hint;
end
$$;
comment on function syncline.build(jsonb) is
'Builds the inactive version of an entity in one transaction and returns the number of the candidate, null where nothing changed. Called by the versioned materialization; errors name no values.';

create or replace function syncline.build_version(p_spec jsonb) returns bigint
language plpgsql
as $$
declare
    v_entity text := p_spec ->> 'entity';
    v_schema text := p_spec ->> 'schema';
    v_is_full boolean := p_spec ->> 'delta' = 'full';
    v_options jsonb := '{}';
    v_row syncline.entities;
    v_base syncline.builds;
    v_build syncline.builds;
    v_sql text;
    v_is_all boolean;
    v_rewrites boolean;
    v_writes boolean;
begin
    set local client_min_messages = warning;
    set local work_mem = '64MB';
    set local maintenance_work_mem = '256MB';
    -- Keys are looked up by index as long as they are few: what a build reads has mostly just been written.
    set local random_page_cost = 1.1;
    perform syncline.lock_entity(v_entity);
    v_row := syncline.open_entity(v_entity, v_schema, p_spec -> 'unique_key');
    select * into v_base from syncline.builds where build_id = v_row.current_build;
    select options into v_options from syncline.runs where run_id = syncline.session_run();

    v_build.build_id := nextval(pg_get_serial_sequence('syncline.builds', 'build_id'));
    v_build.entity := v_entity;
    v_build.version := 3 - coalesce(v_row.current_version, 2);
    v_build.base_build := v_base.build_id;
    v_build.base_loads := v_base.loads;
    v_build.loads := syncline.loads_to_read(p_spec -> 'streams');
    v_build.inputs := syncline.inputs_to_read(p_spec -> 'inputs');
    v_sql := syncline.open_workspace(v_entity, p_spec ->> 'sql', p_spec -> 'streams');
    v_build.signature := md5(
        (p_spec - '{inputs,tests}'::text[])::text || syncline.typing_version() || current_setting('server_version_num')
    );
    if v_is_full or v_build.signature is distinct from v_base.signature then
        v_build.columns := syncline.check_model(
            v_entity, v_sql, v_is_full, p_spec -> 'unique_key', p_spec -> 'streams'
        );
    else
        v_build.columns := v_base.columns;
    end if;
    if v_base.build_id is not null then
        perform syncline.check_view_can_take(format('%I.%I', v_schema, v_entity || '_current')::regclass, v_build.columns);
    end if;
    v_rewrites := not syncline.same_columns(v_build.columns, coalesce(v_base.columns, '[]'));
    v_is_all := v_is_full
        or v_build.signature is distinct from v_base.signature
        or coalesce((v_options ->> 'full_refresh')::boolean, false)
        or syncline.has_pruned(v_base.loads, p_spec -> 'streams');

    perform set_config('syncline.build_id', v_build.build_id::text, true);
    perform set_config('syncline.entity', v_entity, true);
    perform set_config('syncline.redact', case when (p_spec ->> 'redact')::boolean then 'on' else 'off' end, true);
    if v_base.build_id is null then
        v_build := syncline.write_first(v_build, v_schema, v_sql, p_spec);
        v_writes := true;
    else
        perform syncline.find_changed(v_entity, v_base, v_build.loads, p_spec -> 'streams', v_is_all);
        perform syncline.open_substitutes(v_entity, p_spec -> 'streams', v_build.loads, v_is_all);
        perform syncline.find_differing(v_build, v_base, v_schema, v_sql, p_spec, v_is_all);
        v_build := syncline.count_changes(v_build, v_base, v_schema, p_spec -> 'unique_key');
        perform syncline.guard_mass_delete(v_build, v_base, p_spec, coalesce((v_options ->> 'allow_mass_delete')::boolean, false));
        execute format('select exists (select 1 from %I.differing)', 'syncline_' || v_entity) into v_writes;
        v_writes := v_writes or v_rewrites;
        if v_writes then
            v_build := syncline.write_version(v_build, v_row, v_base, v_schema, p_spec, v_rewrites);
        end if;
    end if;
    perform syncline.settle_row_errors(v_build, p_spec, v_is_all);
    perform syncline.save_build(v_build, v_base, v_writes, v_rewrites);
    perform syncline.close_workspace(v_entity, p_spec -> 'streams');
    perform set_config('syncline.build_id', '', true);
    return case when v_writes then v_build.build_id end;
end
$$;
comment on function syncline.build_version(jsonb) is 'The build itself; syncline.build calls it.';

create or replace function syncline.open_entity(p_entity text, p_schema text, p_unique_key jsonb) returns syncline.entities
language plpgsql
as $$
declare
    v_row syncline.entities;
begin
    insert into syncline.entities (entity, schema_name) values (p_entity, p_schema) on conflict do nothing;
    select * into v_row from syncline.entities where entity = p_entity for update;
    if v_row.schema_name <> p_schema then
        raise exception using
            errcode = 'SY205',
            message = format('%s is kept in schema %s of this database, not in %s', p_entity, v_row.schema_name, p_schema),
            hint = 'Use another database for another target, or give the entity another name.';
    end if;
    update syncline.entities set unique_key = array(select jsonb_array_elements_text(p_unique_key)) where entity = p_entity;
    return v_row;
end
$$;
comment on function syncline.open_entity(text, text, jsonb) is 'The entity''s row, made where missing, locked until the transaction ends.';

create or replace function syncline.loads_to_read(p_streams jsonb) returns jsonb
language sql stable
as $$
    select coalesce(
        jsonb_object_agg(
            s.source || '.' || s.stream,
            coalesce((run.pinned_loads ->> (s.source || '.' || s.stream))::bigint, known.last_load, 0)
        ),
        '{}'
    )
    from jsonb_to_recordset(p_streams) as s (source text, stream text)
    left join syncline.streams as known on s.source = known.source and s.stream = known.stream
    left join syncline.runs as run on run.run_id = syncline.session_run()
$$;
comment on function syncline.loads_to_read(jsonb) is
'The load of each stream that a build reads as of: pinned by the session''s run, or the newest.';

create or replace function syncline.inputs_to_read(p_inputs jsonb) returns jsonb
language sql stable
as $$
    select coalesce(
        jsonb_object_agg(e.entity, case when i.is_next then coalesce(e.next_build, e.current_build) else e.current_build end),
        '{}'
    )
    from jsonb_to_recordset(p_inputs) as i (entity text, is_next boolean)
    inner join syncline.entities as e on i.entity = e.entity
$$;
comment on function syncline.inputs_to_read(jsonb) is 'The builds of other entities that a build reads.';

create or replace function syncline.has_pruned(p_loads jsonb, p_streams jsonb) returns boolean
language sql stable
as $$
    select coalesce(bool_or(
        coalesce((p_loads ->> (s.source || '.' || s.stream))::bigint, 0) <= coalesce(known.pruned_through, 0)
    ), false)
    from jsonb_to_recordset(p_streams) as s (source text, stream text)
    left join syncline.streams as known on s.source = known.source and s.stream = known.stream
$$;
comment on function syncline.has_pruned(jsonb, jsonb) is
'Whether what changed since these loads can no longer be told.';

create or replace function syncline.stream_schema(p_entity text, p_place bigint) returns text
language sql immutable
as $$ select format('syncline%s_%s', p_place, p_entity) $$;
comment on function syncline.stream_schema(text, bigint) is
'The schema of an entity''s n-th stream in its workspace: two streams of one name need two.';

create or replace function syncline.open_workspace(p_entity text, p_sql text, p_streams jsonb) returns text
language plpgsql
as $$
declare
    v_stream record;
    v_sql text := p_sql;
    v_schema text;
begin
    execute format('create schema %I', 'syncline_' || p_entity);
    for v_stream in
        select * from rows from (jsonb_to_recordset(p_streams) as (source text, stream text, relation text)) with ordinality as s (source, stream, relation, place)
    loop
        v_schema := syncline.stream_schema(p_entity, v_stream.place);
        execute format('create schema %I', v_schema);
        if strpos(v_sql, v_stream.relation) = 0 then
            raise exception using
                errcode = 'SY206',
                message = format('the SQL of %s does not read %s where it should', p_entity, v_stream.relation),
                hint = 'Write source() in the model or in an ephemeral parent, and nothing else, to read a stream.';
        end if;
        v_sql := replace(v_sql, v_stream.relation, format('%I.%I', v_schema, v_stream.stream));
    end loop;
    return v_sql;
end
$$;
comment on function syncline.open_workspace(text, text, jsonb) is
'Makes the schemas a build works in and returns the model''s SQL with each stream replaced by its substitute there.';

create or replace function syncline.close_workspace(p_entity text, p_streams jsonb) returns void
language plpgsql
as $$
declare
    v_place bigint;
begin
    -- These schemas were made in this transaction: nothing outside can depend on them.
    execute format('drop schema %I cascade', 'syncline_' || p_entity);
    for v_place in 1..jsonb_array_length(p_streams) loop
        execute format('drop schema %I cascade', syncline.stream_schema(p_entity, v_place));
    end loop;
end
$$;
comment on function syncline.close_workspace(text, jsonb) is 'Drops the schemas a build worked in.';

create or replace function syncline.open_substitutes(p_entity text, p_streams jsonb, p_loads jsonb, p_is_all boolean) returns void
language plpgsql
as $$
declare
    v_stream record;
    v_load bigint;
    v_revisions text;
    v_table text;
begin
    for v_stream in
        select * from rows from (jsonb_to_recordset(p_streams) as (source text, stream text)) with ordinality as s (source, stream, place)
    loop
        v_load := p_loads ->> (v_stream.source || '.' || v_stream.stream);
        v_table := format('%I.%I', 'raw_' || v_stream.source, v_stream.stream || '_json');
        if p_is_all then
            v_revisions := format(
                'select * from %s where _first_load <= %s and (_gone_load is null or _gone_load > %s)',
                v_table, v_load, v_load
            );
        else
            -- Two branches, so that each has an index.
            v_revisions := format(
                'select live.* from %I.changed inner join %s as live on live._key = changed._key
                where live._gone_load is null and live._first_load <= %s
                union all
                select gone.* from %I.changed inner join %s as gone on gone._key = changed._key
                where gone._gone_load > %s and gone._first_load <= %s',
                'syncline_' || p_entity, v_table, v_load, 'syncline_' || p_entity, v_table, v_load, v_load
            );
        end if;
        execute format(
            'create view %I.%I as
            select _key, unnest(array[payload::jsonb]) as payload, _ordinal from (%s) as revision',
            syncline.stream_schema(p_entity, v_stream.place), v_stream.stream, v_revisions
        );
    end loop;
end
$$;
comment on function syncline.open_substitutes(text, jsonb, jsonb, boolean) is
'Makes the views that stand for the streams: the wanted records as of the loads, each parsed once.';

create or replace function syncline.open_stubs(p_entity text, p_streams jsonb) returns void
language plpgsql
as $$
declare
    v_stream record;
begin
    for v_stream in
        select * from rows from (jsonb_to_recordset(p_streams) as (source text, stream text)) with ordinality as s (source, stream, place)
    loop
        execute format(
            'create table %I.%I (_key text collate "C", payload jsonb, _ordinal bigint)',
            syncline.stream_schema(p_entity, v_stream.place), v_stream.stream
        );
    end loop;
end
$$;
comment on function syncline.open_stubs(text, jsonb) is
'Lets empty tables stand for the streams, so that a plan shows the model''s own shape.';

create or replace function syncline.close_stubs(p_entity text, p_streams jsonb) returns void
language plpgsql
as $$
declare
    v_stream record;
begin
    for v_stream in
        select * from rows from (jsonb_to_recordset(p_streams) as (source text, stream text)) with ordinality as s (source, stream, place)
    loop
        execute format('drop table %I.%I', syncline.stream_schema(p_entity, v_stream.place), v_stream.stream);
    end loop;
end
$$;
comment on function syncline.close_stubs(text, jsonb) is 'Drops the tables that stood for the streams.';

create or replace function syncline.check_model(
    p_entity text, p_sql text, p_is_full boolean, p_unique_key jsonb, p_streams jsonb
) returns jsonb
language plpgsql
as $$
declare
    v_view text := format('%I.model', 'syncline_' || p_entity);
    v_columns jsonb;
    v_function text;
    v_missing text;
begin
    perform syncline.open_stubs(p_entity, p_streams);
    execute format('create view %s as %s', v_view, p_sql);
    v_columns := syncline.table_columns(v_view::regclass);
    if not jsonb_path_exists(v_columns, '$[*] ? (@.name == "_key" && @.type starts with "text")') then
        raise exception using
            errcode = 'SY207',
            message = format('%s has no column _key of type text', p_entity),
            hint = 'Select _key from the source, unchanged: it says which record a row came from.';
    end if;
    select string_agg(name, ', ') into v_missing
    from jsonb_array_elements_text(p_unique_key) as name
    where not v_columns @> jsonb_build_array(jsonb_build_object('name', name));
    if v_missing is not null then
        raise exception using
            errcode = 'SY207',
            message = format('%s has no column %s, which its unique_key names', p_entity, v_missing),
            hint = 'Name columns of the model in unique_key.';
    end if;
    select proc.oid::regprocedure::text into v_function
    from pg_catalog.pg_rewrite as rule
    cross join lateral regexp_matches(rule.ev_action::text, ':(?:funcid|opfuncid|winfnoid|aggfnoid) (\d+)', 'g') as used
    inner join pg_catalog.pg_proc as proc on used[1]::oid = proc.oid
    where rule.ev_class = v_view::regclass and proc.provolatile = 'v'
    limit 1;
    if v_function is not null then
        raise exception using
            errcode = 'SY208',
            message = format('%s uses %s, which gives another value each time', p_entity, v_function),
            hint = 'A build must give the same rows for the same records: take the value from the record, or use a column default downstream.';
    end if;
    if not p_is_full then
        perform syncline.check_row_local(p_entity, p_sql);
    end if;
    execute format('drop view %s', v_view);
    perform syncline.close_stubs(p_entity, p_streams);
    return v_columns;
end
$$;
comment on function syncline.check_model(text, text, boolean, jsonb, jsonb) is
'The columns of a model''s SQL; raises SY207 to SY209 where it lacks a column, is volatile, or is not row-local.';

create or replace function syncline.check_row_local(p_entity text, p_sql text) returns void
language plpgsql
as $$
declare
    v_plan jsonb;
    v_reason text;
begin
    execute 'explain (verbose, format json) ' || p_sql into v_plan;
    v_plan := v_plan -> 0 -> 'Plan';
    select format('it reads %s.%s beside its stream', scan ->> 'Schema', scan ->> 'Relation Name') into v_reason
    from jsonb_path_query(v_plan, 'strict $.** ? (exists (@."Relation Name"))') as scan
    where scan ->> 'Schema' !~ ('^syncline[0-9]+_' || p_entity || '$')
    limit 1;
    v_reason := coalesce(v_reason, syncline.reason_not_row_local(v_plan));
    if v_reason is null and syncline.count_scans(v_plan) <> 1 then
        v_reason := 'it does not read exactly one stream, once';
    end if;
    if v_reason is not null then
        raise exception using
            errcode = 'SY209',
            message = format('%s cannot be built by changed keys: %s', p_entity, v_reason),
            hint = 'Say delta=''full'' in its config to compare its whole result each time, or move that part into a model downstream.';
    end if;
end
$$;
comment on function syncline.check_row_local(text, text) is
'Raises SY209 where a row of the model is not made from one record alone, by Postgres'' own plan.';

create or replace function syncline.count_scans(p_plan jsonb) returns integer
language sql stable
as $$
    select (p_plan ? 'Relation Name')::integer + coalesce(sum(syncline.count_scans(child)), 0)::integer
    from jsonb_array_elements(p_plan -> 'Plans') as child
$$;
comment on function syncline.count_scans(jsonb) is 'How many scans of tables a plan holds.';

create or replace function syncline.reason_not_row_local(p_plan jsonb) returns text
language plpgsql stable
as $$
declare
    v_node text := p_plan ->> 'Node Type';
    v_child jsonb;
    v_reason text;
    v_left integer;
    v_right integer;
begin
    -- What reads no table may do as it likes: it works within one record.
    if syncline.count_scans(p_plan) = 0 then
        return null;
    end if;
    if v_node in ('Nested Loop', 'Hash Join', 'Merge Join') then
        v_left := syncline.count_scans(p_plan -> 'Plans' -> 0);
        v_right := syncline.count_scans(p_plan -> 'Plans' -> 1);
        if (v_left > 0 and v_right > 0)
            or not (p_plan ->> 'Join Type' = 'Inner' or (p_plan ->> 'Join Type' in ('Left', 'Semi', 'Anti') and v_left > 0)) then
            return 'it joins';
        end if;
    elsif v_node not in (
        'Seq Scan', 'Index Scan', 'Index Only Scan', 'Bitmap Heap Scan', 'Subquery Scan', 'CTE Scan', 'Result',
        'ProjectSet', 'Materialize', 'Memoize', 'Hash', 'Sort', 'Incremental Sort'
    ) then
        return format('it needs %s', case v_node
            when 'Aggregate' then 'an aggregate or distinct'
            when 'Group' then 'a group by'
            when 'Unique' then 'a distinct'
            when 'WindowAgg' then 'a window function'
            when 'Limit' then 'a limit'
            when 'Append' then 'a union'
            when 'SetOp' then 'a set operation'
            else 'a step of kind ' || v_node
        end);
    end if;
    for v_child in select * from jsonb_array_elements(p_plan -> 'Plans') loop
        if v_child ->> 'Parent Relationship' = 'SubPlan' and syncline.count_scans(v_child) > 0 then
            return 'it reads a stream in a subquery';
        end if;
        v_reason := syncline.reason_not_row_local(v_child);
        if v_reason is not null then
            return v_reason;
        end if;
    end loop;
    return null;
end
$$;
comment on function syncline.reason_not_row_local(jsonb) is
'Why a plan does more than read records one by one and unnest them; null where it does not.';

create or replace function syncline.find_changed(
    p_entity text, p_base syncline.builds, p_loads jsonb, p_streams jsonb, p_is_all boolean
) returns void
language plpgsql
as $$
declare
    v_changed text := format('%I.changed', 'syncline_' || p_entity);
    v_stream record;
    v_since bigint;
    v_until bigint;
begin
    execute format('create unlogged table %s (_key text not null)', v_changed);
    if p_is_all then
        return;
    end if;
    for v_stream in select * from jsonb_to_recordset(p_streams) as s (source text, stream text) loop
        v_since := p_base.loads ->> (v_stream.source || '.' || v_stream.stream);
        v_until := p_loads ->> (v_stream.source || '.' || v_stream.stream);
        -- After a rollback or a restart of a run the pinned load may be the older one.
        execute format(
            'insert into %1$s
            select _key from %2$s where _first_load > %3$s and _first_load <= %4$s
            union
            select _key from %2$s where _gone_load > %3$s and _gone_load <= %4$s',
            v_changed, format('%I.%I', 'raw_' || v_stream.source, v_stream.stream || '_json'),
            least(v_since, v_until), greatest(v_since, v_until)
        );
    end loop;
    execute format(
        'insert into %1$s select _key from syncline.rejected_keys as old
        where build_id = $1 and not exists (select 1 from %1$s as already where already._key = old._key)', v_changed
    ) using p_base.build_id;
    execute format('analyze %s', v_changed);
end
$$;
comment on function syncline.find_changed(text, syncline.builds, jsonb, jsonb, boolean) is
'Fills `changed`: keys with a revision opened or closed since the active version''s loads, and those it rejected. Left empty where all keys are wanted.';

create or replace function syncline.find_differing(
    p_build syncline.builds, p_base syncline.builds, p_schema text, p_sql text, p_spec jsonb, p_is_all boolean
) returns void
language plpgsql
as $$
declare
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_active text := format('%I.%I', p_schema, p_build.entity || '_v' || p_base.version);
    v_hash text;
begin
    select string_agg(quote_ident(name), ', ' order by name) into v_hash
    from jsonb_to_recordset(p_build.columns) as c (name text);
    v_hash := format('md5(record_send(row(%s)))', v_hash);
    perform syncline.write_typed(p_build.entity, format('create unlogged table %s.rows as %s', v_work, p_sql), p_is_all);
    execute format('create unlogged table %s.kept (_key text primary key, is_rejected boolean not null)', v_work);
    execute format(
        'insert into %s.kept select distinct _key, true from syncline.row_errors where build_id = $1 and severity = ''error''',
        v_work
    ) using p_build.build_id;
    if found then
        execute format('delete from %1$s.rows as r using %1$s.kept where r._key = kept._key', v_work);
    end if;
    execute format(
        'create view %s.base as select %s from %s as active', v_work,
        syncline.carried_columns(p_build.columns, p_base.columns), v_active
    );
    if p_spec ->> 'on_missing' = 'keep' then
        execute format(
            'insert into %1$s.kept
            select distinct base._key, false from %1$s.base
            where %2$s not exists (select 1 from (%3$s) as here where here._key = base._key)
            on conflict do nothing',
            v_work,
            case when p_is_all then '' else format('exists (select 1 from %s.changed where changed._key = base._key) and', v_work) end,
            syncline.keys_that_are_here(p_build, p_spec)
        );
    end if;
    execute format('analyze %1$s.rows, %1$s.kept', v_work);
    execute format(
        'create unlogged table %1$s.differing as
        select distinct _key
        from (
            select _key
            from (
                select _key, %2$s as row_hash, 1 as side from %1$s.rows
                union all
                select _key, %2$s, -1 from %1$s.base
                where %3$s not exists (select 1 from %1$s.kept where kept._key = base._key)
            ) as both_sides
            group by _key, row_hash
            having sum(side) <> 0
        ) as uneven',
        v_work, v_hash,
        case when p_is_all then '' else format('_key in (select changed._key from %s.changed) and', v_work) end
    );
    execute format('analyze %s.differing', v_work);
    perform syncline.reject_collisions(p_build, p_spec -> 'unique_key');
end
$$;
comment on function syncline.find_differing(syncline.builds, syncline.builds, text, text, jsonb, boolean) is
'Fills `rows`, `kept` and `differing`: the keys whose rows come out otherwise than in the active version.';

create or replace function syncline.write_typed(p_entity text, p_statement text, p_is_all boolean) returns bigint
language plpgsql
as $$
declare
    v_count bigint;
    v_is_parallel text := current_setting('max_parallel_workers_per_gather');
begin
    -- A row error is a row, and a parallel plan cannot write one. So the first try takes every value to fit and
    -- stops at the first that does not; an entity that has errors is not tried so.
    if p_is_all and not exists (select 1 from syncline.row_errors where entity = p_entity and closed_at is null) then
        begin
            perform
                set_config('syncline.rejects', 'raise', true),
                set_config('parallel_setup_cost', '0', true),
                set_config('parallel_tuple_cost', '0', true);
            execute p_statement;
            get diagnostics v_count = row_count;
            perform set_config('syncline.rejects', 'record', true);
            return v_count;
        exception when sqlstate 'SY000' then
            null;
        end;
    end if;
    perform set_config('syncline.rejects', 'record', true), set_config('max_parallel_workers_per_gather', '0', true);
    execute p_statement;
    get diagnostics v_count = row_count;
    perform set_config('max_parallel_workers_per_gather', v_is_parallel, true);
    return v_count;
end
$$;
comment on function syncline.write_typed(text, text, boolean) is
'Runs a statement that types records, in parallel where no value is bad; returns the number of rows.';

create or replace function syncline.carried_columns(p_columns jsonb, p_base_columns jsonb) returns text
language sql stable
as $$
    select string_agg(
        case
            when old.name is null then format('null::%s as %I', new.type, new.name)
            when old.type = new.type then format('active.%I', new.name)
            else format(
                'case when active.%1$I is null or syncline.is_valid(active.%1$I::text, %2$L) then active.%1$I::text::%2$s
                else syncline.reject(active._key, null, %1$L, %2$L, active.%1$I::text, false)::%2$s end as %1$I',
                new.name, split_part(new.type, ' collate ', 1)
            )
        end, ', ' order by new.place
    )
    from rows from (jsonb_to_recordset(p_columns) as (name text, type text)) with ordinality as new (name, type, place)
    left join jsonb_to_recordset(p_base_columns) as old (name text, type text) on new.name = old.name
$$;
comment on function syncline.carried_columns(jsonb, jsonb) is
'The select list that carries rows of the active version into the model''s columns, by name; a value that does not fit a retyped column is null with a row error.';

create or replace function syncline.keys_that_are_here(p_build syncline.builds, p_spec jsonb) returns text
language sql stable
as $$
    select case
        when p_spec ->> 'delta' = 'full' then format('select _key from %I.rows', 'syncline_' || p_build.entity)
        else string_agg(
            format('select _key from %I.%I', syncline.stream_schema(p_build.entity, s.place), s.stream), ' union all '
        )
    end
    from rows from (jsonb_to_recordset(p_spec -> 'streams') as (stream text)) with ordinality as s (stream, place)
$$;
comment on function syncline.keys_that_are_here(syncline.builds, jsonb) is
'A query of the keys that have a live record; of a model that is compared whole, those that have a row.';

create or replace function syncline.reject_collisions(p_build syncline.builds, p_unique_key jsonb) returns void
language plpgsql
as $$
declare
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_losers text;
    v_count bigint;
begin
    if jsonb_array_length(p_unique_key) = 0 then
        return;
    end if;
    -- A key that gives one unique key twice loses whatever the others do.
    perform syncline.reject_losers(p_build, p_unique_key, format(
        'select distinct on (r._key) r._key as origin, jsonb_build_array(%1$s) as identity
        from %2$s.rows as r inner join %2$s.differing on r._key = differing._key
        where %3$s
        group by r._key, %1$s
        having count(*) > 1',
        syncline.column_list(p_unique_key, 'r.%I'), v_work,
        syncline.column_list(p_unique_key, 'r.%I is not null', ' and ')
    ));
    -- Only a unique key that its record did not have in the active version can be in another's way.
    execute format(
        'create unlogged table %1$s.claimed as
        select distinct %2$s
        from %1$s.rows as r inner join %1$s.differing on r._key = differing._key
        where %3$s and not exists (select 1 from %1$s.base where base._key = r._key and %4$s)',
        v_work, syncline.column_list(p_unique_key, 'r.%I'),
        syncline.column_list(p_unique_key, 'r.%I is not null', ' and '),
        syncline.column_list(p_unique_key, 'base.%1$I = r.%1$I', ' and ')
    );
    get diagnostics v_count = row_count;
    execute format('analyze %s.claimed', v_work);
    -- A loser keeps its rows in the active version, which can be in another's way: until nothing collides.
    v_losers := format(
        'with claims as (
            select r._key as origin, jsonb_build_array(%1$s) as identity, true as is_new, exists (
                select 1 from %2$s.base where base._key = r._key and %3$s
            ) as is_held
            from %2$s.claimed inner join %2$s.rows as r on %4$s
            where exists (select 1 from %2$s.differing where differing._key = r._key)
            union all
            select base._key, jsonb_build_array(%1$s), false, true
            from %2$s.claimed inner join %2$s.base on %5$s
            where not exists (select 1 from %2$s.differing where differing._key = base._key)
        ),
        ranked as (
            select *, row_number() over (partition by identity order by is_held desc, origin collate "C") as place
            from claims
        )
        select distinct on (origin) origin, identity from ranked where place > 1 and is_new',
        syncline.column_list(p_unique_key, 'claimed.%I'), v_work,
        syncline.column_list(p_unique_key, 'base.%1$I = r.%1$I', ' and '),
        syncline.column_list(p_unique_key, 'r.%1$I = claimed.%1$I', ' and '),
        syncline.column_list(p_unique_key, 'base.%1$I = claimed.%1$I', ' and ')
    );
    while v_count > 0 loop
        v_count := syncline.reject_losers(p_build, p_unique_key, v_losers);
    end loop;
end
$$;
comment on function syncline.reject_collisions(syncline.builds, jsonb) is
'Where two origin keys give one unique key, the row already in the active version wins, then the lowest _key; the losing key is rejected whole and keeps its rows there.';

create or replace function syncline.reject_losers(p_build syncline.builds, p_unique_key jsonb, p_losers text) returns bigint
language plpgsql
as $$
declare
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_count bigint;
begin
    execute format(
        'with losers as (%1$s),
        unwritten as (delete from %2$s.differing using losers where differing._key = losers.origin),
        dropped as (delete from %2$s.rows as r using losers where r._key = losers.origin),
        kept as (insert into %2$s.kept select origin, true from losers)
        select syncline.add_row_error(origin, null, %3$L, identity::text, %4$L, ''error'') from losers',
        p_losers, v_work, syncline.column_list(p_unique_key, '%s'),
        format('another record has this %s', syncline.column_list(p_unique_key, '%s'))
    );
    get diagnostics v_count = row_count;
    return v_count;
end
$$;
comment on function syncline.reject_losers(syncline.builds, jsonb, text) is
'Rejects the keys that the query gives with their unique key; returns their number.';

create or replace function syncline.column_list(p_names jsonb, p_format text, p_separator text default ', ') returns text
language sql stable
as $$
    select string_agg(format(p_format, name), p_separator order by place)
    from jsonb_array_elements_text(p_names) with ordinality as n (name, place)
$$;
comment on function syncline.column_list(jsonb, text, text) is 'Column names put into a format, joined.';

create or replace function syncline.count_changes(
    p_build syncline.builds, p_base syncline.builds, p_schema text, p_unique_key jsonb
) returns syncline.builds
language plpgsql
as $$
declare
    v_build syncline.builds := p_build;
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_identity text := coalesce(syncline.column_list(p_unique_key, '%I'), '_key');
    v_place text;
    v_content text;
    v_side text;
begin
    select format('record_send(row(%s))', string_agg(quote_ident(name), ', ' order by name)) into v_content
    from jsonb_to_recordset(p_build.columns) as c (name text);
    -- The active version is not unique by a unique key that is new.
    v_place := case
        when jsonb_array_length(p_unique_key) > 0 and p_build.signature = p_base.signature then '1'
        else format('row_number() over (partition by %s order by %s)', v_identity, v_content)
    end;
    v_side := format(
        'select %s, %s as place, %s as content from {side} where _key in (select differing._key from %s.differing)',
        v_identity, v_place, v_content, v_work
    );
    execute format(
        'select
            count(*) filter (where old.content is null),
            count(*) filter (where new.content <> old.content),
            count(*) filter (where new.content is null)
        from (%s) as new full join (%s) as old using (%s, place)',
        replace(v_side, '{side}', v_work || '.rows'), replace(v_side, '{side}', v_work || '.base'), v_identity
    ) into v_build.rows_inserted, v_build.rows_updated, v_build.rows_deleted;
    execute format('select count(*) from %s.kept where is_rejected', v_work) into v_build.keys_rejected;
    v_build.rows_total := p_base.rows_total + v_build.rows_inserted - v_build.rows_deleted;
    v_build.rows_unchanged := p_base.rows_total - v_build.rows_updated - v_build.rows_deleted;
    return v_build;
end
$$;
comment on function syncline.count_changes(syncline.builds, syncline.builds, text, jsonb) is
'The build with its counts of rows inserted, updated, deleted and unchanged, matched by unique key.';

create or replace function syncline.guard_mass_delete(
    p_build syncline.builds, p_base syncline.builds, p_spec jsonb, p_is_allowed boolean
) returns void
language plpgsql
as $$
declare
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_gone bigint;
    v_keys bigint;
begin
    if p_is_allowed or p_build.rows_deleted <= 10 then
        return;
    end if;
    execute format(
        'select count(distinct base._key) from %1$s.base inner join %1$s.differing on base._key = differing._key
        where not exists (select 1 from %1$s.rows as r where r._key = base._key)', v_work
    ) into v_gone;
    if v_gone <= 10 then
        return;
    end if;
    execute format('select count(distinct _key) from %s.base', v_work) into v_keys;
    if v_gone > v_keys * (p_spec ->> 'max_delete_ratio')::numeric then
        raise exception using
            errcode = 'SY301',
            message = format('%s would lose %s of its %s keys', p_build.entity, v_gone, v_keys),
            hint = format(
                'That is more than max_delete_ratio (%s) allows; nothing was changed. If they are gone indeed, run again with --allow-mass-delete.',
                p_spec ->> 'max_delete_ratio'
            );
    end if;
end
$$;
comment on function syncline.guard_mass_delete(syncline.builds, syncline.builds, jsonb, boolean) is
'Raises SY301 where a build would delete more keys than max_delete_ratio allows, and more than 10.';

create or replace function syncline.write_first(p_build syncline.builds, p_schema text, p_sql text, p_spec jsonb)
returns syncline.builds
language plpgsql
as $$
declare
    v_build syncline.builds := p_build;
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_table text := format('%I.%I', p_schema, p_build.entity || '_v' || p_build.version);
begin
    perform syncline.open_substitutes(p_build.entity, p_spec -> 'streams', p_build.loads, true);
    perform syncline.open_placeholder(p_build, p_schema);
    perform syncline.drop_version(p_build.entity, p_schema, p_build.version);
    v_build.rows_total := syncline.write_typed(p_build.entity, format('create table %s as %s', v_table, p_sql), true);
    execute format('create unlogged table %s.kept (_key text primary key, is_rejected boolean not null)', v_work);
    execute format('create unlogged table %s.differing (_key text not null)', v_work);
    execute format('create view %s.rows as select * from %s', v_work, v_table);
    execute format('create view %s.base as select * from %s where false', v_work, v_table);
    execute format(
        'with rejected as (
            insert into %1$s.kept
            select distinct _key, true from syncline.row_errors where build_id = $1 and severity = ''error''
            returning _key
        )
        delete from %2$s as written using rejected where written._key = rejected._key',
        v_work, v_table
    ) using p_build.build_id;
    begin
        perform syncline.index_version(p_build.entity, p_schema, p_build.version, p_spec);
    exception when unique_violation then
        -- Only now is it known that there are collisions.
        execute format('insert into %s.differing select distinct _key from %s', v_work, v_table);
        perform syncline.reject_collisions(p_build, p_spec -> 'unique_key');
        execute format('truncate %s.differing', v_work);
        perform syncline.index_version(p_build.entity, p_schema, p_build.version, p_spec);
    end;
    execute format('select count(*) from %s.kept', v_work) into v_build.keys_rejected;
    if v_build.keys_rejected > 0 then
        execute format('select count(*) from %s', v_table) into v_build.rows_total;
    end if;
    execute format('analyze %s', v_table);
    v_build.rows_inserted := v_build.rows_total;
    v_build.rows_updated := 0;
    v_build.rows_deleted := 0;
    v_build.rows_unchanged := 0;
    v_build.is_written_anew := true;
    return v_build;
end
$$;
comment on function syncline.write_first(syncline.builds, text, text, jsonb) is
'Writes the first version of an entity straight from the model, indexes after the data.';

create or replace function syncline.open_placeholder(p_build syncline.builds, p_schema text) returns void
language plpgsql
as $$
declare
    v_current text := format('%I.%I', p_schema, p_build.entity || '_current');
    v_other text := format('%I.%I', p_schema, p_build.entity || '_v' || (3 - p_build.version));
    v_columns text;
begin
    -- Until something is published, current shows the other version, which is empty.
    if to_regclass(v_current) is not null
        and not syncline.table_columns(v_current::regclass) <@ p_build.columns then
        begin
            perform syncline.execute_politely(format('drop view %s', v_current), v_current::regclass);
        exception when dependent_objects_still_exist then
            perform syncline.check_view_can_take(v_current::regclass, p_build.columns);
        end;
    end if;
    if to_regclass(v_other) is not null and not syncline.same_columns(syncline.table_columns(v_other::regclass), p_build.columns) then
        if to_regclass(v_current) is null then
            perform syncline.drop_version(p_build.entity, p_schema, (3 - p_build.version)::smallint);
        else
            select string_agg(format('add column %I %s', c.name, c.type), ', ') into v_columns
            from jsonb_to_recordset(p_build.columns) as c (name text, type text)
            where not syncline.table_columns(v_other::regclass) @> jsonb_build_array(jsonb_build_object('name', c.name));
            perform syncline.execute_politely(format('alter table %s %s', v_other, v_columns), v_other::regclass);
        end if;
    end if;
    if to_regclass(v_other) is null then
        select string_agg(format('%I %s', c.name, c.type), ', ') into v_columns
        from jsonb_to_recordset(p_build.columns) as c (name text, type text);
        execute format('create table %s (%s)', v_other, v_columns);
        execute format('comment on table %s is %L', v_other, 'A version of ' || p_build.entity || '; read ' || p_build.entity || '_current.');
    end if;
    if to_regclass(v_current) is null or not syncline.same_columns(syncline.table_columns(v_current::regclass), p_build.columns) then
        perform syncline.point_view(p_schema, p_build.entity || '_current', p_build.entity || '_v' || (3 - p_build.version));
        execute format('comment on view %s is %L', v_current, 'What is published of ' || p_build.entity || '.');
    end if;
    execute format('create table if not exists %I.%I (_key text not null)', p_schema, p_build.entity || '_delta');
    execute format(
        'comment on table %I.%I is %L', p_schema, p_build.entity || '_delta',
        'The keys on which the two versions of ' || p_build.entity || ' differ.'
    );
end
$$;
comment on function syncline.open_placeholder(syncline.builds, text) is
'Makes the empty other version, the current view on it and the delta table of an entity that was never published.';

create or replace function syncline.drop_version(p_entity text, p_schema text, p_version smallint) returns void
language plpgsql
as $$
declare
    v_table regclass := to_regclass(format('%I.%I', p_schema, p_entity || '_v' || p_version));
    v_next regclass := to_regclass(format('%I.%I', p_schema, p_entity || '_next'));
begin
    if v_table is null then
        return;
    end if;
    if v_next is not null and v_next::text = any(syncline.dependents(v_table)) then
        perform syncline.execute_politely(format('drop view %s', v_next), v_next);
    end if;
    perform syncline.execute_politely(format('drop table %s', v_table), v_table);
exception when dependent_objects_still_exist then
    raise exception using
        errcode = 'SY203',
        message = format(
            'other objects read a version of %s: %s', p_entity,
            array_to_string(syncline.dependents(v_table) || syncline.dependents(v_next), ', ')
        ),
        hint = format('Let them read %s_current, or drop them.', p_entity);
end
$$;
comment on function syncline.drop_version(text, text, smallint) is
'Drops a version''s table, the next view first where it reads it; never what others made on it.';

create or replace function syncline.wanted_indexes(p_table text, p_spec jsonb)
returns table (index_name text, is_unique boolean, method text, columns text)
language sql stable
as $$
    select
        p_table || '_' || left(md5(w::text), 8),
        w.is_unique,
        w.method,
        syncline.column_list(w.columns, '%I')
    from (
        select true, 'btree', p_spec -> 'unique_key'
        where jsonb_array_length(p_spec -> 'unique_key') > 0
        union all
        select false, 'btree', '["_key"]'::jsonb
        where p_spec -> 'unique_key' <> '["_key"]'
        union all
        select coalesce(i.is_unique, false), coalesce(i.type, 'btree'), i.columns
        from jsonb_to_recordset(replace((p_spec -> 'indexes')::text, '"unique"', '"is_unique"')::jsonb)
            as i (columns jsonb, is_unique boolean, type text)
    ) as w (is_unique, method, columns)
$$;
comment on function syncline.wanted_indexes(text, jsonb) is
'The indexes a version has: unique_key, _key, and those the model declares.';

create or replace function syncline.drop_other_indexes(p_entity text, p_schema text, p_version smallint, p_spec jsonb)
returns void
language plpgsql
as $$
declare
    v_name text := p_entity || '_v' || p_version;
    v_index regclass;
begin
    for v_index in
        select i.indexrelid::regclass
        from pg_catalog.pg_index as i
        inner join pg_catalog.pg_class as c on i.indexrelid = c.oid
        where i.indrelid = format('%I.%I', p_schema, v_name)::regclass
            and c.relname not in (select w.index_name from syncline.wanted_indexes(v_name, p_spec) as w)
    loop
        perform syncline.execute_politely(format('drop index %s', v_index), format('%I.%I', p_schema, v_name)::regclass);
    end loop;
end
$$;
comment on function syncline.drop_other_indexes(text, text, smallint, jsonb) is
'Drops the indexes of a version that the model no longer declares, before it is written in place.';

create or replace function syncline.index_version(p_entity text, p_schema text, p_version smallint, p_spec jsonb)
returns void
language plpgsql
as $$
declare
    v_name text := p_entity || '_v' || p_version;
    v_index record;
begin
    for v_index in select * from syncline.wanted_indexes(v_name, p_spec) loop
        execute format(
            'create %s index if not exists %I on %I.%I using %I (%s)',
            case when v_index.is_unique then 'unique' end, v_index.index_name, p_schema, v_name, v_index.method, v_index.columns
        );
    end loop;
end
$$;
comment on function syncline.index_version(text, text, smallint, jsonb) is
'Makes the indexes of a version where they are missing: unique_key, _key, and those the model declares.';

create or replace function syncline.write_version(
    p_build syncline.builds,
    p_row syncline.entities,
    p_base syncline.builds,
    p_schema text,
    p_spec jsonb,
    p_rewrites boolean
) returns syncline.builds
language plpgsql
as $$
declare
    v_build syncline.builds := p_build;
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_table text := format('%I.%I', p_schema, p_build.entity || '_v' || p_build.version);
    v_active text := format('%I.%I', p_schema, p_build.entity || '_v' || p_base.version);
    v_delta text := format('%I.%I', p_schema, p_build.entity || '_delta');
    v_list text;
    v_count bigint;
begin
    select string_agg(quote_ident(name), ', ') into v_list from jsonb_to_recordset(p_build.columns) as c (name text);
    execute format(
        'create unlogged table %1$s.writing as select _key from %1$s.differing union select _key from %2$s', v_work, v_delta
    );
    get diagnostics v_count = row_count;
    execute format('analyze %s.writing', v_work);
    v_build.is_written_anew := p_row.is_delta_all
        or p_rewrites
        or to_regclass(v_table) is null
        or v_count > p_base.rows_total * syncline.share_written_in_place();
    if v_build.is_written_anew then
        perform syncline.drop_version(p_build.entity, p_schema, p_build.version);
        execute format(
            'create table %1$s as
            select %2$s from %3$s.base where not exists (select 1 from %3$s.differing where differing._key = base._key)
            union all
            select %2$s from %3$s.rows as r where exists (select 1 from %3$s.differing where differing._key = r._key)',
            v_table, v_list, v_work
        );
        execute format('comment on table %s is %L', v_table, 'A version of ' || p_build.entity || '; read ' || p_build.entity || '_current.');
    else
        perform syncline.drop_other_indexes(p_build.entity, p_schema, p_build.version, p_spec);
        execute format(
            'delete from %1$s as written using %2$s.writing where written._key = writing._key', v_table, v_work
        );
    end if;
    begin
        if not v_build.is_written_anew then
            execute format(
                'insert into %1$s (%2$s)
                select %2$s from %3$s.rows as r where r._key in (select differing._key from %3$s.differing)
                union all
                select %2$s from %4$s as active
                where active._key in (
                    select writing._key from %3$s.writing
                    where not exists (select 1 from %3$s.differing where differing._key = writing._key)
                )',
                v_table, v_list, v_work, v_active
            );
        end if;
        perform syncline.index_version(p_build.entity, p_schema, p_build.version, p_spec);
    exception when unique_violation then
        raise exception using
            errcode = 'SY210',
            message = format('rows of %s collide on its unique key or on a unique index', p_build.entity),
            hint = 'Collisions on unique_key are row errors, those on an index of `indexes` are not: drop it there, or put a changed unique_key back.';
    end;
    if v_build.is_written_anew then
        execute format('analyze %s', v_table);
    end if;
    return v_build;
end
$$;
comment on function syncline.write_version(
    syncline.builds, syncline.entities, syncline.builds, text, jsonb, boolean
) is 'Writes the inactive version: in place, where only a small share of its rows is to be written, or anew.';

create or replace function syncline.share_written_in_place() returns numeric
language sql immutable
as $$ select 0.15 $$;
comment on function syncline.share_written_in_place() is
'The share of a table''s rows up to which writing it in place is cheaper than copying the other version.';

create or replace function syncline.settle_row_errors(p_build syncline.builds, p_spec jsonb, p_is_all boolean) returns void
language plpgsql
as $$
begin
    update syncline.row_errors as old set closed_at = clock_timestamp()
    where old.entity = p_build.entity and old.closed_at is null and old.build_id < p_build.build_id
        and (p_is_all or p_build.base_build is null);
    if not p_is_all and p_build.base_build is not null then
        execute format(
            'update syncline.row_errors as old set closed_at = clock_timestamp()
            from %I.changed
            where old.entity = $1 and old._key = changed._key and old.closed_at is null and old.build_id < $2',
            'syncline_' || p_build.entity
        ) using p_build.entity, p_build.build_id;
    end if;
    update syncline.row_errors as new set
        column_name = mapped.column_name,
        source = case when jsonb_array_length(p_spec -> 'streams') = 1 then p_spec #>> '{streams,0,source}' end,
        stream = case when jsonb_array_length(p_spec -> 'streams') = 1 then p_spec #>> '{streams,0,stream}' end
    from syncline.row_errors as self
    left join syncline.mapping(p_spec ->> 'sql') as mapped on self.path = mapped.path
    where new.build_id = p_build.build_id and self.error_id = new.error_id;
end
$$;
comment on function syncline.settle_row_errors(syncline.builds, jsonb, boolean) is
'Closes the errors of keys that were typed again, and names columns and streams on the new ones.';

create or replace function syncline.mapping(p_sql text)
returns table (column_name text, path text, type text, is_required boolean)
language sql immutable
as $$
    select distinct on (marker ->> 'path') found[2], marker ->> 'path', marker ->> 'type', (marker ->> 'required')::boolean
    from
        regexp_matches(p_sql, '/\* syncline:typed (\{[^}]*\}) \*/\s+(?:as\s+)?"?([A-Za-z_][A-Za-z0-9_]*)"?', 'g') as found,
        lateral (select found[1]::jsonb as marker) as parsed
$$;
comment on function syncline.mapping(text) is
'Which column comes from which JSON path, read from the marks that typed() leaves in the compiled SQL.';

create or replace function syncline.save_build(
    p_build syncline.builds, p_base syncline.builds, p_writes boolean, p_rewrites boolean
) returns void
language plpgsql
as $$
declare
    v_build syncline.builds := p_build;
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_delta text;
begin
    v_build.state := 'built';
    v_build.run_id := syncline.session_run();
    v_build.attempt := syncline.session_attempt();
    v_build.created_at := clock_timestamp();
    -- What the other version held is written over, or, where nothing changed, no candidate any more.
    update syncline.builds set state = 'superseded'
    where entity = p_build.entity and version = p_build.version
        and (state in ('built', 'failed', 'trial', 'checked') or (p_writes and state = 'retired'));
    if p_writes then
        insert into syncline.builds overriding system value values (v_build.*);
        select format('%I.%I', schema_name, entity || '_delta') into v_delta
        from syncline.entities
        where entity = p_build.entity;
        execute format('delete from %s', v_delta);
        execute format('insert into %s select _key from %s.differing', v_delta, v_work);
    else
        update syncline.builds set loads = p_build.loads, signature = p_build.signature
        where build_id = p_base.build_id;
        delete from syncline.rejected_keys where build_id = p_base.build_id;
    end if;
    execute format('insert into syncline.rejected_keys select $1, _key from %s.kept where is_rejected', v_work)
    using case when p_writes then p_build.build_id else p_base.build_id end;
    update syncline.entities set
        next_build = case when p_writes then p_build.build_id end,
        is_delta_all = case when p_writes then p_rewrites else is_delta_all end
    where entity = p_build.entity;
    perform syncline.point_next(p_build.entity, case when p_writes then p_build.version else p_base.version end);
    if syncline.session_run() is not null then
        insert into syncline.results values (
            syncline.session_run(), syncline.session_attempt(), p_build.entity,
            case when p_writes then p_build.version else p_base.version end, p_build.rows_total, p_build.rows_inserted,
            p_build.rows_updated, p_build.rows_deleted, p_build.rows_unchanged, p_build.keys_rejected
        )
        on conflict (run_id, attempt, entity) do update set
            version = excluded.version, rows_total = excluded.rows_total, rows_inserted = excluded.rows_inserted,
            rows_updated = excluded.rows_updated, rows_deleted = excluded.rows_deleted,
            rows_unchanged = excluded.rows_unchanged, keys_rejected = excluded.keys_rejected;
    end if;
end
$$;
comment on function syncline.save_build(syncline.builds, syncline.builds, boolean, boolean) is
'Saves the build''s row, delta and rejected keys and points next at it; where nothing changed, moves the active version''s loads forward instead.';
