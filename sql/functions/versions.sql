-- Writing a version: its table, its indexes, in place or anew.

create or replace function syncline.write_first(
    p_build syncline.builds, p_schema text, p_sql text, p_spec jsonb, p_merge jsonb
)
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
    v_build.rows_total := syncline.write_typed(
        p_build.entity, format('create table %s as %s', v_table, syncline.build_sql(p_build, p_sql, p_merge, null, false)), true
    );
    perform syncline.open_kept(p_build.entity);
    if p_merge is not null then
        execute format('create view %s.rows as select * from %s', v_work, v_table);
        perform syncline.stash_conflicts(p_build, p_merge);
        execute format('drop view %s.rows; alter table %s drop column _conflicts', v_work, v_table);
    end if;
    execute format('create view %s.rows as select * from %s', v_work, v_table);
    execute format('create view %s.base as select * from %s where false', v_work, v_table);
    execute format(
        'with rejected as (
            insert into %1$s.kept
            select distinct _key, true from syncline.row_errors
            where build_id = $1 and severity = ''error'' and _key is not null
            returning _key
        )
        delete from %2$s as written using rejected where written._key = rejected._key',
        v_work, v_table
    ) using p_build.build_id;
    perform syncline.reject_repeats(p_build, p_spec, p_merge);
    begin
        perform syncline.index_version(p_build.entity, p_schema, p_build.version, p_spec);
    exception when unique_violation then
        -- Only now is it known that there are collisions.
        execute format('insert into %s.differing select distinct _key from %s', v_work, v_table);
        perform syncline.reject_collisions(p_build, p_spec -> 'unique_key', p_spec -> 'streams');
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
comment on function syncline.write_first(syncline.builds, text, text, jsonb, jsonb) is
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
            perform syncline.check_view_can_take(v_current::regclass, p_build.columns, false);
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
        perform syncline.grant_current(p_schema, p_build.entity);
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
