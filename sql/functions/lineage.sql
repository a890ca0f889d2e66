-- Where a value came from: answered from the very SQL that the published build ran, over the records it read.

create or replace function syncline.published_model(p_entity text) returns jsonb
language plpgsql stable
as $$
declare
    v_spec jsonb;
begin
    perform syncline.check_published(p_entity);
    select m.spec into v_spec
    from syncline.entities as e
    inner join syncline.builds as b on e.current_build = b.build_id
    inner join syncline.models as m on b.signature = m.signature
    where e.entity = p_entity;
    if v_spec is null then
        raise exception using
            errcode = 'SY364',
            message = format('%s was published by an earlier release, which kept no lineage', p_entity),
            hint = 'Run `syncline run` once.';
    end if;
    return v_spec;
end
$$;
comment on function syncline.published_model(text) is 'What the materialization handed over for the published build of an entity; raises SY364 where that was not kept.';

create or replace function syncline.column_mapping(p_entity text) returns table (
    column_name text,
    column_type text,
    rule text,
    source text,
    stream text,
    path text,
    type text,
    is_required boolean,
    priority integer
)
language plpgsql stable
as $$
declare
    v_spec jsonb := syncline.published_model(p_entity);
    v_merge jsonb := syncline.merge_mark(v_spec ->> 'sql');
begin
    return query
    with entity_columns as (
        select c.name, c.type, c.place
        from syncline.entities as e
        inner join syncline.builds as b on e.current_build = b.build_id
        cross join rows from (jsonb_to_recordset(b.columns) as (name text, type text)) with ordinality as c (name, type, place)
        where e.entity = p_entity
    ),
    read as (
        select *, count(*) over () as streams
        from jsonb_to_recordset(v_spec -> 'streams') as s (source text, stream text, relation text)
    ),
    single as (
        select mapped.column_name, mapped.path, mapped.type, mapped.is_required, read.source, read.stream
        from syncline.mapping(v_spec ->> 'sql') as mapped
        left join read on read.streams = 1
        where v_merge is null
    ),
    fields as (
        select field.key as name, kind.rule, said.source, kind.base + said.place as place
        from jsonb_each(v_merge -> 'fields') as field
        cross join (values ('truths', 'source_of_truth', 0), ('references', 'reference', 1000)) as kind (part, rule, base)
        cross join lateral jsonb_array_elements_text(field.value -> kind.part) with ordinality as said (source, place)
    ),
    several as (
        select
            fields.name, fields.rule, fields.source, mapped.path, mapped.type, mapped.is_required, fed.source as fed_source, fed.stream,
            row_number() over (partition by fields.name order by fields.place)::integer as place
        from fields
        left join syncline.merged_mapping(v_spec ->> 'sql') as mapped
            on fields.name = mapped.column_name and fields.source = mapped.source
        left join lateral (
            select read.source, read.stream
            from syncline.merged_streams(v_spec) as s
            inner join read on s.relation = read.relation
            where s.source = fields.source
            limit 1
        ) as fed on true
    )
    select
        c.name, c.type,
        case
            when c.name = '_key' then 'origin key'
            when c.name = '_missing_since' then 'missing since'
            when v_merge -> 'derived' ? c.name then 'derived'
            when several.name is not null then several.rule
            when v_merge -> 'fields' ? c.name then 'switched off'
            when single.path is not null then 'typed'
            else 'computed'
        end,
        coalesce(several.source, single.source),
        coalesce(several.fed_source || '.' || several.stream, single.source || '.' || single.stream),
        coalesce(several.path, single.path, v_merge -> 'derived' ->> c.name),
        coalesce(several.type, single.type),
        coalesce(several.is_required, single.is_required),
        several.place
    from entity_columns as c
    left join single on c.name = single.column_name
    left join several on c.name = several.name
    order by c.place, several.place, single.path;
end
$$;
comment on function syncline.column_mapping(text) is
'Which column of a published entity comes from which JSON path of which stream, by what rule; of a merged field a row for each source, in the order in which they are asked.';

create or replace function syncline.merged_streams(p_spec jsonb) returns table (source text, relation text)
language sql stable
as $$
    select distinct parts.source, s.relation
    from syncline.merged_parts(p_spec ->> 'sql') as parts
    inner join jsonb_to_recordset(p_spec -> 'streams') as s (relation text) on strpos(parts.body, s.relation) > 0
$$;
comment on function syncline.merged_streams(jsonb) is 'Which stream each source of a merged model reads.';

create or replace function syncline.rows_of_key(p_spec jsonb, p_loads jsonb, p_key text) returns jsonb
language plpgsql stable
as $$
declare
    v_sql text := replace(p_spec ->> 'sql', 'syncline.explains(', '(true or '''' = ');
    v_streams text := '';
    v_stream record;
    v_rows jsonb;
    -- With `delta: full` a model may have keys of its own: only the whole result tells which records a row is of.
    v_is_full boolean := coalesce(p_spec ->> 'delta', 'auto') = 'full';
begin
    for v_stream in
        select s.*, case when count(*) over (partition by s.stream) = 1 then s.stream else 'stream' || s.place end as name
        from rows from (jsonb_to_recordset(p_spec -> 'streams') as (source text, stream text, relation text))
            with ordinality as s (source, stream, relation, place)
    loop
        v_sql := replace(v_sql, v_stream.relation, quote_ident(v_stream.name));
        v_streams := v_streams || format(
            '%s %I as (select _key, unnest(array[payload::jsonb]) as payload, _ordinal from %I.%I
            where (%L or _key = %L) and _first_load <= %s and (_gone_load is null or _gone_load > %s))',
            case when v_streams = '' then 'with' else ',' end, v_stream.name, 'raw_' || v_stream.source, v_stream.stream || '_json',
            v_is_full, p_key, p_loads ->> (v_stream.source || '.' || v_stream.stream), p_loads ->> (v_stream.source || '.' || v_stream.stream)
        );
    end loop;
    execute format(
        '%s select coalesce(jsonb_agg(to_jsonb(made.*)), ''[]'') from (%s) as made where made._key = %L', v_streams, v_sql, p_key
    ) into v_rows;
    return v_rows;
end
$$;
comment on function syncline.rows_of_key(jsonb, jsonb, text) is
'What a model gives for one key over the records as of these loads, with all that each source says of it.';

create or replace function syncline.origin_records(p_spec jsonb, p_loads jsonb, p_key text)
returns table (label text, load_id bigint, row_number bigint, run_id bigint, loaded_at timestamptz)
language plpgsql stable
as $$
declare
    v_stream record;
begin
    for v_stream in select * from jsonb_to_recordset(p_spec -> 'streams') as s (source text, stream text) loop
        return query execute format(
            'select $1, r._first_load, r._ordinal, l.run_id, l.finished_at
            from %I.%I as r left join syncline.loads as l on l.load_id = r._first_load
            where r._key = $2 and r._first_load <= $3 and (r._gone_load is null or r._gone_load > $3)',
            'raw_' || v_stream.source, v_stream.stream || '_json'
        ) using
            v_stream.source || '.' || v_stream.stream, p_key, (p_loads ->> (v_stream.source || '.' || v_stream.stream))::bigint;
    end loop;
end
$$;
comment on function syncline.origin_records(jsonb, jsonb, text) is
'The records of a key as of these loads: the load, the run and the row that brought each.';

create or replace function syncline.loads_before_missing(p_entity text, p_build syncline.builds, p_spec jsonb, p_key text)
returns jsonb
language plpgsql stable
as $$
declare
    v_stream record;
    v_gone bigint;
    v_newest bigint;
    v_loads jsonb;
begin
    for v_stream in select * from jsonb_to_recordset(p_spec -> 'streams') as s (source text, stream text) loop
        execute format(
            'select max(_gone_load) from %I.%I where _key = $1 and _gone_load <= $2', 'raw_' || v_stream.source, v_stream.stream || '_json'
        ) into v_gone using p_key, (p_build.loads ->> (v_stream.source || '.' || v_stream.stream))::bigint;
        v_newest := greatest(v_newest, v_gone);
    end loop;
    select b.base_loads into v_loads
    from syncline.builds as b
    where b.entity = p_entity
        and b.build_id <= p_build.build_id
        and b.publication_id is not null
        and exists (
            select 1 from jsonb_each_text(b.loads) as l
            where l.value::bigint >= v_newest and (b.base_loads ->> l.key)::bigint < v_newest
        )
    order by b.build_id desc
    limit 1;
    return coalesce(v_loads, p_build.loads);
end
$$;
comment on function syncline.loads_before_missing(text, syncline.builds, jsonb, text) is
'The loads that a marked row was last built from, before the build that found its record gone.';

create or replace function syncline.lineage(p_entity text, p_key text, p_column text default null)
returns table (
    _key text,
    column_name text,
    value jsonb,
    rule text,
    source text,
    stream text,
    path text,
    row_number bigint,
    load_id bigint,
    run_id bigint,
    loaded_at timestamptz,
    candidates jsonb,
    previous jsonb,
    changed_at timestamptz,
    changed_by_run bigint,
    override jsonb,
    row_errors jsonb
)
language plpgsql stable
set jit = off
as $$
declare
    v_spec jsonb := syncline.published_model(p_entity);
    v_row syncline.entities;
    v_build syncline.builds;
    v_key text := syncline.find_key(p_entity, p_key);
    v_rows jsonb;
    v_merge jsonb := syncline.merge_mark(v_spec ->> 'sql');
    v_said jsonb := '{}';
    v_loads jsonb;
    v_is_missing boolean;
    v_is_rejected boolean;
begin
    select * into v_row from syncline.entities where entity = p_entity;
    select * into v_build from syncline.builds where build_id = v_row.current_build;
    perform syncline.check_column(p_entity, v_build, p_column);
    execute format('select coalesce(jsonb_agg(to_jsonb(t.*)), ''[]'') from %I.%I as t where t._key = $1', v_row.schema_name, p_entity || '_current')
    into v_rows using v_key;
    if v_rows = '[]' then
        raise exception using
            errcode = 'SY361',
            message = format('there is no row %s in %s', p_key, p_entity),
            hint = format('Give its _key or its unique key. Where it was once: syncline history %s %s', p_entity, syncline.shell_quoted(p_key));
    end if;
    v_is_missing := v_rows -> 0 ->> '_missing_since' is not null;
    v_loads := case when v_is_missing then syncline.loads_before_missing(p_entity, v_build, v_spec, v_key) else v_build.loads end;
    if v_merge is not null then
        v_said := coalesce(syncline.rows_of_key(v_spec, v_loads, v_key) -> 0 -> '_conflicts', '{}');
    end if;
    v_is_rejected := exists (
        select 1 from syncline.rejected_keys as r where r.build_id = v_build.build_id and r._key = v_key
    );
    return query
    with content as (
        select entry.row_content, entry.place
        from jsonb_array_elements(v_rows) with ordinality as entry (row_content, place)
    ),
    origins as materialized (
        select * from syncline.origin_records(v_spec, v_loads, v_key)
    ),
    changes as materialized (
        select c.change_id, c.old, c.new, p.published_at, p.run_id
        from syncline.changes as c
        inner join syncline.publications as p on c.publication_id = p.publication_id
        where c.entity = p_entity and c._key = v_key
    ),
    asked as materialized (
        select
            m.*,
            m.priority is null or coalesce(
                v_said -> m.column_name -> m.source <> 'null'
                and (m.rule = 'source_of_truth' or v_said -> m.column_name -> m.source = v_rows -> 0 -> m.column_name), false
            ) as has_said
        from syncline.column_mapping(p_entity) with ordinality as m (
            column_name, column_type, rule, source, stream, path, type, is_required, priority, place
        )
    ),
    mapped as (
        -- Of a merged field: the source that people trust, else the first source of truth that says anything, else a
        -- reference that says what the row has.
        select distinct on (asked.column_name, coalesce(asked.path, '') = '' or asked.priority is not null, case when asked.priority is null then asked.path end)
            asked.*, to_jsonb(o) as decision,
            coalesce((v_merge #>> array['fields', asked.column_name, 'keeps'])::boolean, false) as keeps
        from asked
        left join syncline.overrides_in_force(p_entity, v_build.last_touch) as o
            on o._key = v_key and asked.column_name = o.column_name
        order by
            asked.column_name, coalesce(asked.path, '') = '' or asked.priority is not null,
            case when asked.priority is null then asked.path end,
            (asked.source = o.source and v_said -> asked.column_name -> asked.source <> 'null') is true desc, asked.has_said desc, asked.place
    )
    select
        v_key,
        mapped.column_name,
        content.row_content -> mapped.column_name,
        case
            -- A source that is trusted but says nothing decides nothing.
            when mapped.decision is not null
                and coalesce(mapped.decision ->> 'source' = mapped.source or mapped.decision ->> 'source' is null or v_is_rejected, false)
                then 'override'
            when v_is_missing and mapped.column_name <> '_missing_since' then 'kept: its record is gone'
            when v_is_rejected then 'kept: its record was rejected'
            when mapped.stream is not null and v_spec ->> 'delta' is distinct from 'full' and not exists (select 1 from origins)
                then 'kept: no live record'
            when mapped.keeps and (not mapped.has_said or mapped.rule = 'switched off') then 'reference: kept from when the row was new'
            when not mapped.has_said then 'no source has a value'
            else mapped.rule
        end,
        case when mapped.has_said then mapped.source end,
        case when mapped.has_said then mapped.stream end,
        case when mapped.has_said then mapped.path end,
        origin.row_number,
        origin.load_id,
        origin.run_id,
        origin.loaded_at,
        v_said -> mapped.column_name,
        last.old -> mapped.column_name,
        last.published_at,
        last.run_id,
        mapped.decision - '{entity,_key,column_name,touch_id,lift_touch_id,lifted_at,lifted_by}'::text[]
        - case when syncline.is_redacted(p_entity) then '{displaced}' else '{}' end::text[],
        (
            select jsonb_agg(jsonb_build_object(
                'error_id', bad.error_id, 'stream', bad.source || '.' || bad.stream, 'row_number', bad.row_number,
                'value', bad.value, 'message', bad.message
            ) order by bad.error_id)
            from syncline.row_errors as bad
            where bad.entity = p_entity and bad._key = v_key and bad.closed_at is null
                and mapped.column_name = any(string_to_array(bad.column_name, ', '))
        )
    from content
    cross join mapped
    left join origins as origin on mapped.has_said and mapped.stream = origin.label
    left join lateral (
        select c.old, c.published_at, c.run_id
        from changes as c
        where c.new ? mapped.column_name
        order by c.change_id desc
        limit 1
    ) as last on true
    where p_column is null or mapped.column_name = p_column
    order by content.place, mapped.place;
end
$$;
comment on function syncline.lineage(text, text, text) is
'Where each field of a published row (by _key or unique key), or one of them, came from. Raises SY201 and SY305 for an unknown entity, SY261 for an unknown column, SY361 where there is no such row.';

create or replace function syncline.shell_quoted(p_text text) returns text
language sql immutable
as $$
    select case when p_text ~ '^[A-Za-z0-9_.:@/-]+$' then p_text else '''' || replace(p_text, '''', '''\''''') || '''' end
$$;
comment on function syncline.shell_quoted(text) is 'A text as a shell takes it for one word, for commands in hints.';

create or replace function syncline.check_column(p_entity text, p_build syncline.builds, p_column text) returns void
language plpgsql stable
as $$
begin
    if p_column is not null and not p_build.columns @> jsonb_build_array(jsonb_build_object('name', p_column)) then
        raise exception using
            errcode = 'SY261',
            message = format('%s has no column %s', p_entity, p_column),
            hint = 'Its columns: ' || (select string_agg(c.name, ', ') from jsonb_to_recordset(p_build.columns) as c (name text)) || '.';
    end if;
end
$$;
comment on function syncline.check_column(text, syncline.builds, text) is 'Raises SY261 where a build has no such column.';

create or replace function syncline.life_of(p_entity text, p_key text, p_limit bigint default null) returns table (
    happened_at timestamptz,
    event text,
    column_name text,
    old jsonb,
    new jsonb,
    run_id bigint,
    done_by text,
    detail text
)
language plpgsql stable
as $$
declare
    v_key text := syncline.find_key(p_entity, p_key);
    v_is_there boolean;
begin
    execute format(
        'select exists (select from %I.%I where _key = $1)',
        (select e.schema_name from syncline.entities as e where e.entity = p_entity), p_entity || '_current'
    ) into v_is_there using v_key;
    return query
    select *
    from (
        select
            c.published_at, case when c.is_rollback then 'rolled back: ' || c.change else c.change end,
            null::text, c.old, c.new, c.run_id, null::text, null::text
        from syncline.list_changes(p_entity, v_key) as c
        union all
        select
            o.set_at, 'override set', o.column_name, case when not syncline.is_redacted(p_entity) then o.displaced end, o.value,
            null, o.set_by, concat_ws(': ', 'from ' || o.source, o.reason)
        from syncline.overrides as o
        where o.entity = p_entity and o._key = v_key
        union all
        select o.lifted_at, 'override lifted', o.column_name, o.value, null, null, o.lifted_by, 'from ' || o.source
        from syncline.overrides as o
        where o.entity = p_entity and o._key = v_key and o.lifted_at is not null
        union all
        select c.first_seen_at, 'conflict', c.column_name, null, c.candidates, null, null, format(case c.times_seen when 1 then '%s, seen once' else '%s, seen %s times' end, c.state, c.times_seen)
        from syncline.conflicts as c
        where c.entity = p_entity and c._key = v_key
        union all
        -- Each build that tries a record again tells the same of it.
        select
            min(bad.created_at), 'row error', coalesce(bad.column_name, bad.path), null, null, min(bad.run_id), null,
            bad.message || case when count(*) > 1 then format(', met %s times', count(*)) else '' end
        from syncline.row_errors as bad
        where bad.entity = p_entity and bad._key = v_key
        group by coalesce(bad.column_name, bad.path), bad.message, bad.value
        union all
        -- The rows of a first publish are not recorded one by one.
        select p.published_at, 'first published', null, null, null, p.run_id, null, null
        from syncline.builds as b
        inner join syncline.publications as p on b.publication_id = p.publication_id
        where b.entity = p_entity and b.base_build is null
            and coalesce(
                (select c.change <> 'inserted' from syncline.list_changes(p_entity, v_key) as c order by c.change_id limit 1),
                v_is_there
            )
    ) as events (happened_at, event, column_name, old, new, run_id, done_by, detail)
    order by events.happened_at desc
    limit p_limit;
end
$$;
comment on function syncline.life_of(text, text, bigint) is
'The life of one row, newest first: each change that was published or rolled back, overrides, conflicts, row errors.';
