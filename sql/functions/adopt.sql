-- Starting an entity from a table that another tool or a script has filled.

create or replace function syncline.adoptable_columns(p_table text) returns jsonb
language plpgsql stable
as $$
begin
    if to_regclass(p_table) is null then
        raise exception using
            errcode = 'SY201',
            message = format('there is no table %s in the database', p_table),
            hint = 'Write schema.table, as `syncline psql -c ''\d *.*''` lists them.';
    end if;
    return (
        with found as (
            -- dlt joins the names of nested fields with two underscores.
            select c.*, replace(c.name, '__', '_') as plain
            from rows from (jsonb_to_recordset(syncline.table_columns(p_table::regclass)) as (name text, type text))
                with ordinality as c (name, type, place)
            -- What dlt, Airbyte and Fivetran add for themselves is no data.
            where c.name !~ '^(_dlt_|_airbyte_|_fivetran_)'
        )

        select coalesce(
            jsonb_agg(jsonb_build_object(
                'name', case when f.plain in (select same.name from found as same) then f.name else f.plain end,
                'column', f.name,
                'type', f.type
            ) order by f.place),
            '[]'
        )
        from found as f
    );
end
$$;
comment on function syncline.adoptable_columns(text) is
'The columns of a table that an entity can start from: the name that a model would have, the column, its type; without those that loading tools add for themselves. Raises SY201 where there is no such table.';

create or replace function syncline.open_adoption(p_entity text, p_table text, p_key text[], p_streams text[]) returns void
language plpgsql
as $$
declare
    v_columns jsonb := syncline.adoptable_columns(p_table);
    v_missing text;
    v_nulls bigint;
begin
    perform syncline.hold_run();
    if exists (select 1 from syncline.entities where entity = p_entity and current_build is not null) then
        raise exception using
            errcode = 'SY306',
            message = format('%s is published already', p_entity),
            hint = format('An entity can start from a table only before its first publish: let a new entity read the stream, or go on with `syncline run`. `syncline diff %s` shows what a run would change.', p_entity);
    end if;
    select string_agg(name, ', ') into v_missing
    from unnest(p_key) as name
    where not v_columns @> jsonb_build_array(jsonb_build_object('column', name));
    if v_missing is not null then
        raise exception using
            errcode = 'SY201',
            message = format('%s has no column %s', p_table, v_missing),
            hint = 'Name the columns that hold the stream''s key with --key, in its order.';
    end if;
    execute format(
        'select count(*) from %s where %s', p_table::regclass,
        (select string_agg(format('%I is null', name), ' or ') from unnest(p_key) as name)
    ) into v_nulls;
    if v_nulls > 0 then
        raise exception using
            errcode = 'SY307',
            message = format('%s rows of %s have no %s', v_nulls, p_table, array_to_string(p_key, ', ')),
            hint = 'A row needs the key of the record that it stands for: give them one, delete them, or name other columns with --key.';
    end if;
    -- The version is made as of no load at all: what is loaded already is then news to it.
    update syncline.runs set pinned_loads = (select coalesce(jsonb_object_agg(label, 0), '{}') from unnest(p_streams) as label)
    where run_id = syncline.session_run();
end
$$;
comment on function syncline.open_adoption(text, text, text[], text[]) is
'Checks that an entity can start from a table, and lets the session''s run build it as of no load. Raises SY306 where it is published already, SY201 where a key column is missing, SY307 where one is null.';

create or replace function syncline.adopted_key(p_key text[]) returns text
language sql immutable
as $$
    select case
        when cardinality(p_key) = 1 then format('(to_json(t.%I) #>> ''{}'')', p_key[1])
        else (
            select '''['' || ' || string_agg(format('to_json(t.%I)::text', name), ' || '','' || ' order by place) || ' || '']'''
            from unnest(p_key) with ordinality as k (name, place)
        )
    end
$$;
comment on function syncline.adopted_key(text[]) is
'The expression that gives a row''s key as the loader writes it: a string as it is, a number as written, several as a JSON array.';

create or replace function syncline.adopted_rows(p_columns jsonb, p_table text, p_key text[]) returns text
language sql stable
as $$
    select format(
        'select %s from (select %s from %s as t) as active',
        syncline.carried_columns(p_columns, jsonb_agg(jsonb_build_object('name', c.name, 'type', c.type)), true),
        string_agg(format('%s as %I', c.expression, c.name), ', '),
        p_table::regclass
    )
    from (
        select
            wanted.name,
            case
                when wanted.name = '_key' then syncline.adopted_key(p_key) || ' collate "C"'
                when wanted.type = 'jsonb' and given.type !~ '^(json|text|character)[^[]*$' then format('to_jsonb(t.%I)', given.source)
                when wanted.type ~ '\]$' and given.type ~ '^json'
                    then format('syncline.array_literal(nullif(to_jsonb(t.%I), ''null''), false)', given.source)
                when wanted.type in ('bigint', 'integer', 'smallint') and given.type ~ '^numeric'
                    then format('trim_scale(t.%I)', given.source)
                else format('t.%I', given.source)
            end as expression,
            case
                when wanted.name = '_key' then wanted.type
                when wanted.type = 'jsonb' and given.type !~ '^(json|text|character)[^[]*$' then 'jsonb'
                when wanted.type ~ '\]$' and given.type ~ '^json' then 'text'
                else given.type
            end as type
        from jsonb_to_recordset(p_columns) as wanted (name text, type text)
        left join (
            select c ->> 'name' as name, c ->> 'column' as source, c ->> 'type' as type
            from jsonb_array_elements(syncline.adoptable_columns(p_table)) as c
        ) as given on wanted.name = given.name
        where given.name is not null or wanted.name = '_key'
    ) as c
$$;
comment on function syncline.adopted_rows(jsonb, text, text[]) is
'The query that gives a table''s rows in a model''s columns, by name; a value that does not fit is null with a row error.';

create or replace function syncline.adopt(p_entity text, p_table text, p_key text[], p_is_redacted boolean default false)
returns jsonb
language plpgsql
as $$
declare
    v_row syncline.entities;
    v_build syncline.builds;
    v_given jsonb := syncline.adoptable_columns(p_table);
    v_target text;
    v_count bigint;
    v_facts jsonb;
begin
    perform syncline.hold_run();
    select * into strict v_row from syncline.entities where entity = p_entity for update;
    select * into strict v_build
    from syncline.builds
    where build_id = v_row.next_build and run_id = syncline.session_run() and state = 'built';
    v_target := format('%I.%I', v_row.schema_name, p_entity || '_v' || v_build.version);
    perform syncline.check_adopted_keys(v_row, p_table, p_key, v_given);
    perform set_config('syncline.build_id', v_build.build_id::text, true);
    perform set_config('syncline.entity', p_entity, true);
    perform set_config('syncline.rejects', 'record', true);
    perform set_config('syncline.redact', case when p_is_redacted then 'on' else 'off' end, true);
    execute format('truncate %s', v_target);
    delete from syncline.row_errors where build_id = v_build.build_id;
    begin
        execute format(
            'insert into %s (%s) %s', v_target,
            (select string_agg(quote_ident(name), ', ' order by place)
            from rows from (jsonb_to_recordset(v_build.columns) as (name text, type text)) with ordinality as c (name, type, place)),
            syncline.adopted_rows(v_build.columns, p_table, p_key)
        );
    exception when unique_violation then
        raise exception using
            errcode = 'SY307',
            message = format('rows of %s collide on the unique key of %s, or on a unique index', p_table, p_entity),
            hint = format('Mend the table, or the unique_key of the model: (%s).', array_to_string(v_row.unique_key, ', '));
    end;
    get diagnostics v_count = row_count;
    execute format('analyze %s', v_target);
    perform set_config('syncline.build_id', '', true);
    update syncline.row_errors set column_name = path where build_id = v_build.build_id;
    -- No model has this signature, so the next build looks at every key.
    update syncline.builds set
        signature = 'adopted', state = 'checked', checked_at = clock_timestamp(), rows_total = v_count, rows_inserted = v_count
    where build_id = v_build.build_id;
    update syncline.results set rows_total = v_count, rows_inserted = v_count
    where run_id = syncline.session_run() and attempt = syncline.session_attempt() and entity = p_entity;
    select jsonb_build_object(
        'rows', v_count,
        'errors', (select count(*) from syncline.row_errors where build_id = v_build.build_id),
        'missing', (
            select coalesce(jsonb_agg(c.name), '[]')
            from jsonb_to_recordset(v_build.columns) as c (name text)
            where c.name <> '_key' and not v_given @> jsonb_build_array(jsonb_build_object('name', c.name))
        ),
        'ignored', (
            select coalesce(jsonb_agg(c -> 'column'), '[]')
            from jsonb_array_elements(v_given) as c
            where c ->> 'name' = '_key' or not v_build.columns @> jsonb_build_array(jsonb_build_object('name', c -> 'name'))
        ),
        'loaded', syncline.count_loaded(v_target, v_build.loads)
    ) into v_facts;
    return v_facts;
end
$$;
comment on function syncline.adopt(text, text, text[], boolean) is
'Fills the candidate that the session''s run has built of an entity with a table''s rows, and marks it as checked. Returns rows, errors, the columns missing in the table and those ignored, and how many rows have a loaded record.';

create or replace function syncline.check_adopted_keys(p_row syncline.entities, p_table text, p_key text[], p_given jsonb)
returns void
language plpgsql
as $$
declare
    v_missing text;
    v_count bigint;
begin
    select string_agg(name, ', ') into v_missing
    from unnest(p_row.unique_key) as name
    where name <> '_key' and not p_given @> jsonb_build_array(jsonb_build_object('name', name));
    if v_missing is not null then
        raise exception using
            errcode = 'SY201',
            message = format('%s has no column %s, which is in the unique key of %s', p_table, v_missing, p_row.entity),
            hint = 'Adopt a view on the table that names its columns as the model does.';
    end if;
    -- An entity of lists in records has several rows for a key, and more columns in its unique key than the record has.
    if cardinality(p_row.unique_key) > cardinality(p_key) then
        return;
    end if;
    execute format(
        'select count(*) from (select 1 from %s as t group by %s having count(*) > 1) as repeated',
        p_table::regclass, syncline.adopted_key(p_key)
    ) into v_count;
    if v_count > 0 then
        raise exception using
            errcode = 'SY307',
            message = format('%s keys are in %s more than once, by %s', v_count, p_table, array_to_string(p_key, ', ')),
            hint = 'Each row must stand for one record: mend the table, or name the columns that tell its rows apart with --key.';
    end if;
end
$$;
comment on function syncline.check_adopted_keys(syncline.entities, text, text[], jsonb) is
'Raises SY201 where a table lacks a column of the entity''s unique key, SY307 where it has one key twice.';

create or replace function syncline.count_loaded(p_table text, p_loads jsonb) returns bigint
language plpgsql stable
as $$
declare
    v_streams text;
    v_count bigint;
begin
    select string_agg(
        format('exists (select 1 from %I.%I as live where live._key = adopted._key and live._gone_load is null)', 'raw_' || s.source, s.stream || '_json'),
        ' or '
    ) into v_streams
    from jsonb_object_keys(p_loads) as label
    inner join syncline.streams as s on label = s.source || '.' || s.stream
    where s.live_records > 0;
    if v_streams is not null then
        execute format('select count(*) from %s as adopted where %s', p_table, v_streams) into v_count;
    end if;
    return v_count;
end
$$;
comment on function syncline.count_loaded(text, jsonb) is
'How many rows of a version have a live record in one of the streams; null where none has any.';
