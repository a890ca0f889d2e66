-- The versioned build: from the records of changed keys to the inactive version, in one transaction.

create or replace function syncline.engine_version() returns integer
language sql immutable parallel safe
as $$ select 3 $$;
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
    v_merge jsonb := syncline.merge_mark(p_spec ->> 'sql');
    v_is_all boolean;
    v_rewrites boolean;
    v_writes boolean;
begin
    perform syncline.settle_values();
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
    v_build.last_touch := greatest(
        v_base.last_touch, (select coalesce(max(touch_id), 0) from syncline.touches where entity = v_entity)
    );
    v_sql := syncline.open_workspace(v_entity, p_spec ->> 'sql', p_spec -> 'streams');
    v_build.signature := md5(
        (p_spec - '{inputs,tests}'::text[])::text || syncline.typing_version() || current_setting('server_version_num')
    );
    if v_is_full or v_build.signature is distinct from v_base.signature then
        v_build.columns := syncline.check_model(p_spec, v_sql, v_merge);
        insert into syncline.models (signature, entity, spec) values (v_build.signature, v_entity, p_spec - 'tests')
        on conflict do nothing;
    else
        v_build.columns := v_base.columns;
    end if;
    if v_base.build_id is not null then
        perform syncline.check_view_can_take(
            format('%I.%I', v_schema, v_entity || '_current')::regclass, v_build.columns,
            coalesce(p_spec ->> 'on_schema_change' = 'recreate', false)
        );
    end if;
    v_rewrites := not syncline.same_columns(v_build.columns, coalesce(v_base.columns, '[]'));
    v_is_all := v_is_full
        or v_build.signature is distinct from v_base.signature
        or coalesce((v_options ->> 'full_refresh')::boolean, false)
        or coalesce((v_options ->> 'force_overwrite')::boolean, false)
        or syncline.has_pruned(v_base.loads, p_spec -> 'streams');

    perform set_config('syncline.build_id', v_build.build_id::text, true);
    perform set_config('syncline.entity', v_entity, true);
    perform set_config('syncline.redact', case when (p_spec ->> 'redact')::boolean then 'on' else 'off' end, true);
    if v_base.build_id is null then
        v_build := syncline.write_first(v_build, v_schema, v_sql, p_spec, v_merge);
        v_writes := true;
    else
        perform syncline.find_changed(v_entity, v_base, v_build.loads, p_spec -> 'streams', v_is_all);
        perform syncline.open_substitutes(v_entity, p_spec -> 'streams', v_build.loads, v_is_all);
        perform syncline.find_differing(
            v_build, v_base, v_schema, v_sql, p_spec, v_merge, v_is_all, coalesce((v_options ->> 'force_overwrite')::boolean, false)
        );
        v_build := syncline.count_changes(v_build, v_base, p_spec -> 'unique_key');
        perform syncline.guard_mass_delete(v_build, v_base, p_spec, coalesce((v_options ->> 'allow_mass_delete')::boolean, false));
        execute format('select exists (select 1 from %I.differing)', 'syncline_' || v_entity) into v_writes;
        v_writes := v_writes or v_rewrites;
        if v_writes then
            v_build := syncline.write_version(v_build, v_row, v_base, v_schema, p_spec, v_rewrites);
        end if;
    end if;
    perform syncline.settle_row_errors(v_build, p_spec, v_is_all);
    perform syncline.save_build(v_build, v_base, v_writes, v_rewrites);
    perform syncline.save_conflicts(
        v_build, case when v_writes then v_build.build_id else v_base.build_id end, p_spec, v_merge, v_is_all
    );
    if not v_writes then
        perform syncline.settle_unwritten(v_row, v_base);
    end if;
    perform syncline.close_workspace(v_entity, p_spec -> 'streams');
    perform set_config('syncline.build_id', '', true);
    return case when v_writes then v_build.build_id end;
end
$$;
comment on function syncline.build_version(jsonb) is 'The build itself; syncline.build calls it.';

create or replace function syncline.settle_values() returns void
language sql
as $$
    select set_config(name, value, true)
    from (
        values
        ('client_min_messages', 'warning'),
        ('work_mem', '64MB'),
        ('maintenance_work_mem', '256MB'),
        -- What a value reads as must not depend on how server, database or user are set up.
        ('datestyle', 'ISO, YMD'),
        ('timezone', 'UTC'),
        ('intervalstyle', 'postgres'),
        ('extra_float_digits', '1'),
        ('bytea_output', 'hex'),
        ('lc_monetary', 'C'),
        -- Compiled, a statement over a few keys would take longer than it runs.
        ('jit', 'off'),
        -- Keys are looked up by index as long as they are few: what a build reads has mostly just been written.
        ('random_page_cost', '1.1')
    ) as settings (name, value)
$$;
comment on function syncline.settle_values() is 'Sets what a build relies on, until the transaction ends.';

create or replace function syncline.open_entity(p_entity text, p_schema text, p_unique_key jsonb) returns syncline.entities
language plpgsql
as $$
declare
    v_row syncline.entities;
begin
    insert into syncline.entities (entity, schema_name) values (p_entity, p_schema) on conflict do nothing;
    -- Not `for update`: people may set overrides meanwhile.
    select * into v_row from syncline.entities where entity = p_entity for no key update;
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
    left join (
        select path, type, string_agg(distinct column_name, ', ' order by column_name) as column_name
        from syncline.mapping(p_spec ->> 'sql')
        group by path, type
    ) as mapped on self.path = mapped.path and self.type = mapped.type
    where new.build_id = p_build.build_id and self.error_id = new.error_id;
    if jsonb_array_length(p_spec -> 'streams') > 1 then
        perform syncline.name_streams(p_build, p_spec);
    end if;
end
$$;
comment on function syncline.settle_row_errors(syncline.builds, jsonb, boolean) is
'Closes the errors of keys that were typed again, and names columns and streams on the new ones.';

create or replace function syncline.settle_unwritten(p_row syncline.entities, p_base syncline.builds) returns void
language plpgsql
as $$
declare
    v_build syncline.builds;
begin
    perform syncline.apply_conflicts(p_base.build_id);
    select * into v_build from syncline.builds where build_id = p_base.build_id;
    if v_build.signature is distinct from p_base.signature then
        -- The model may ask for a history or for references that it did not ask for before.
        perform syncline.record_history(p_row, v_build, m.spec, clock_timestamp(), true)
        from syncline.models as m
        where m.signature = v_build.signature;
        perform syncline.write_references(p_row, v_build, nullif(new.spec -> 'external_ref', 'null'), true, clock_timestamp())
        from syncline.models as new
        left join syncline.models as old on old.signature = p_base.signature
        where new.signature = v_build.signature and new.spec -> 'external_ref' is distinct from old.spec -> 'external_ref';
    end if;
end
$$;
comment on function syncline.settle_unwritten(syncline.entities, syncline.builds) is
'What a build that wrote no rows found counts at once: there is nothing to publish.';

create or replace function syncline.name_streams(p_build syncline.builds, p_spec jsonb) returns void
language plpgsql
as $$
declare
    v_stream record;
begin
    for v_stream in select * from syncline.streams_read(p_build.entity, p_spec -> 'streams') loop
        -- The record that has this value at this place; a redacted one is told by its place alone.
        execute format(
            'update syncline.row_errors as bad set source = $2, stream = $3
            from %s as record
            where bad.build_id = $1 and bad.stream is null and bad.path is not null
                and record._key = bad._key and record._ordinal = bad.row_number
                and (bad.value is null or left(record.payload #>> string_to_array(bad.path, ''.''), 1000) = bad.value)',
            v_stream.substitute
        ) using p_build.build_id, split_part(v_stream.label, '.', 1), substr(v_stream.label, strpos(v_stream.label, '.') + 1);
    end loop;
end
$$;
comment on function syncline.name_streams(syncline.builds, jsonb) is
'Names on the new row errors of an entity of several streams the one that each value came from.';

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
    delete from syncline.conflict_findings as f
    using syncline.builds as b
    where b.entity = p_build.entity and b.state = 'superseded' and f.build_id = b.build_id;
    if p_writes then
        insert into syncline.builds overriding system value values (v_build.*);
        select format('%I.%I', schema_name, entity || '_delta') into v_delta
        from syncline.entities
        where entity = p_build.entity;
        execute format('delete from %s', v_delta);
        execute format('insert into %s select _key from %s.differing', v_delta, v_work);
    else
        update syncline.builds set
            loads = p_build.loads,
            -- What a new model asks for is left to the first run that may publish.
            signature = case when syncline.publishes() then p_build.signature else signature end,
            last_touch = p_build.last_touch
        where build_id = p_base.build_id;
        delete from syncline.rejected_keys where build_id = p_base.build_id;
    end if;
    -- Touches that every build one can still go on from knows of.
    delete from syncline.touches
    where entity = p_build.entity and touch_id <= (
        select min(b.last_touch) from syncline.builds as b
        where b.entity = p_build.entity and b.state in ('current', 'retired', 'built', 'checked')
    );
    execute format('insert into syncline.rejected_keys select $1, _key from %s.kept where is_rejected', v_work)
    using case when p_writes then p_build.build_id else p_base.build_id end;
    update syncline.entities set
        next_build = case when p_writes then p_build.build_id end,
        is_delta_all = case when p_writes then p_rewrites else is_delta_all end
    where entity = p_build.entity;
    perform syncline.point_next(p_build.entity, case when p_writes then p_build.version else p_base.version end);
    if syncline.session_run() is not null then
        insert into syncline.results (
            run_id, attempt, entity, version, rows_total, rows_inserted, rows_updated, rows_deleted, rows_unchanged,
            keys_rejected
        )
        values (
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
