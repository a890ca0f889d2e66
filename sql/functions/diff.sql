-- What a candidate would change, row by row, or what the last publish changed.

create or replace function syncline.compared_builds(p_entity text)
returns table (new_build bigint, old_build bigint, is_candidate boolean, is_failed boolean)
language plpgsql stable
as $$
declare
    v_row syncline.entities;
    v_current syncline.builds;
    v_other syncline.builds;
begin
    perform syncline.check_known(array[p_entity]);
    select * into v_row from syncline.entities where entity = p_entity;
    select * into v_current from syncline.builds where build_id = v_row.current_build;
    select * into v_other
    from syncline.builds
    where build_id = v_row.next_build
        or (v_row.next_build is null and entity = p_entity and state = 'retired')
        -- The rows of a candidate that failed stand in its table until the next build.
        or (v_row.next_build is null and entity = p_entity and state = 'failed' and version is distinct from v_row.current_version)
    order by build_id desc
    limit 1;
    if v_other.build_id is null and v_current.build_id is null then
        raise exception using
            errcode = 'SY305',
            message = format('%s has neither a candidate nor anything published', p_entity),
            hint = 'Run `syncline run` first.';
    end if;
    -- The other table holds what no build stands for any more: a candidate that was overtaken, a trial, a rollback.
    if v_other.build_id is null and exists (
        select 1 from syncline.builds where entity = p_entity and version = 3 - v_current.version
    ) then
        raise exception using
            errcode = 'SY305',
            message = format('there is nothing to compare %s with: its last publish was rolled back or written over', p_entity),
            hint = 'Run `syncline run --dry-run` to see what the next one would change.';
    end if;
    is_failed := coalesce(v_other.state = 'failed', false);
    is_candidate := v_row.next_build is not null or is_failed;
    new_build := case when is_candidate then v_other.build_id else v_current.build_id end;
    old_build := case when is_candidate then v_current.build_id else v_other.build_id end;
    return next;
end
$$;
comment on function syncline.compared_builds(text) is
'Which builds a diff of the entity compares: the candidate with current, one that failed included; with none, current with what it was before. `old_build` is null where nothing was published before.';

create or replace function syncline.sides(p_entity text)
returns table (
    old_table text,
    new_table text,
    columns jsonb,
    unique_key jsonb,
    is_delta_all boolean,
    delta_table text,
    is_candidate boolean,
    is_failed boolean
)
language sql stable
as $$
    select
        case when older.version is not null then format('%I.%I', e.schema_name, e.entity || '_v' || older.version) end,
        format('%I.%I', e.schema_name, e.entity || '_v' || newer.version),
        newer.columns,
        to_jsonb(e.unique_key),
        e.is_delta_all,
        format('%I.%I', e.schema_name, e.entity || '_delta'),
        compared.is_candidate,
        compared.is_failed
    -- Joined to the left: it raises where there is nothing to compare, and is asked whatever the others hold.
    from syncline.compared_builds(p_entity) as compared
    left join syncline.entities as e on e.entity = p_entity
    left join syncline.builds as newer on compared.new_build = newer.build_id
    left join syncline.builds as older on compared.old_build = older.build_id
$$;
comment on function syncline.sides(text) is
'What a diff of the entity reads: the tables of the builds that it compares; `old_table` is null where nothing was published before.';

create or replace function syncline.diff_query(p_entity text, p_limit bigint, p_sample integer) returns text
language plpgsql stable
as $$
declare
    v_sides record;
    v_identity text;
    v_new_list text;
    v_old_list text;
    v_keys text;
    v_both constant text := 'select whole._key, %1$s, md5(record_send(whole.*)) as image, 1 as side
        from (select %2$s from %3$s as active %4$s) as whole
        union all
        select whole._key, %1$s, md5(record_send(whole.*)), -1
        from (select %5$s from %6$s as active %4$s) as whole';
begin
    select * into v_sides from syncline.sides(p_entity);
    v_identity := coalesce(
        'jsonb_build_object(' || syncline.column_list(v_sides.unique_key, '%1$L, whole.%1$I') || ')', 'to_jsonb(whole._key)'
    );
    select string_agg(format('active.%I', name), ', ' order by place) into v_new_list
    from rows from (jsonb_to_recordset(v_sides.columns) as (name text)) with ordinality as c (name, place);
    if v_sides.old_table is null then
        return format(
            'select ''inserted'' as change, whole._key, %1$s as identity, null::jsonb as old, to_jsonb(whole.*) as new
            from (select %2$s from %3$s as active order by active._key) as whole
            limit %4$s',
            v_identity, v_new_list, v_sides.new_table, coalesce(least(p_limit, p_sample)::text, 'all')
        );
    end if;
    v_old_list := syncline.carried_columns(v_sides.columns, syncline.table_columns(v_sides.old_table::regclass));
    -- Where any key may differ, those that do are found first: only their rows are worth writing out as JSON.
    v_keys := case when v_sides.is_delta_all
        then format(
            'select one._key from (%s) as one group by one._key, one.image having sum(one.side) <> 0',
            format(v_both, 'null', v_new_list, v_sides.new_table, '', v_old_list, v_sides.old_table)
        )
        else 'select delta._key from ' || v_sides.delta_table || ' as delta'
    end;
    -- Rows that are equal to the byte cancel out, copy by copy; what is left pairs up by identity.
    return format(
        'with both_sides as (%1$s),
        uneven as (
            select identity, _key, content, sum(side) as surplus
            from both_sides
            group by identity, _key, image, content
            having sum(side) <> 0
        ),
        numbered as (
            select
                identity, _key, content, surplus > 0 as is_new,
                row_number() over (partition by identity, surplus > 0 order by _key collate "C", content) as place
            from uneven cross join generate_series(1, abs(surplus))
        ),
        paired as (
            select
                case when o.content is null then ''inserted'' when n.content is null then ''deleted'' else ''updated'' end as change,
                coalesce(n._key, o._key) as _key, identity, place, o.content as old, n.content as new
            from (select * from numbered where is_new) as n
            full join (select * from numbered where not is_new) as o using (identity, place)
        ),
        ranked as (
            select *, %2$s as rank from paired
        )
        select change, _key, identity, old, new from ranked
        where %3$s
        order by change, _key collate "C", identity, place
        limit %4$s',
        format(
            v_both, v_identity || ' as identity, to_jsonb(whole.*) as content', v_new_list, v_sides.new_table,
            format('where active._key in (%s)', v_keys), v_old_list, v_sides.old_table
        ),
        case when p_sample is null then 'null' else 'row_number() over (partition by change order by _key collate "C", identity, place)' end,
        case when p_sample is null then 'true' else 'rank <= ' || p_sample end,
        coalesce(p_limit::text, 'all')
    );
end
$$;
comment on function syncline.diff_query(text, bigint, integer) is
'The query behind diff and diff_fields: whole rows, with what they were matched by, at most so many, and of each kind at most `p_sample`.';

create or replace function syncline.diff(p_entity text, p_limit bigint default null)
returns table (change text, _key text, old jsonb, new jsonb)
language plpgsql stable
set work_mem = '64MB'
as $$
begin
    return query execute format(
        'select d.change, d._key, d.old, d.new from (%s) as d', syncline.diff_query(p_entity, p_limit, null)
    );
end
$$;
comment on function syncline.diff(text, bigint) is
'Row by row, whole: the candidate against current; with none, what the last publish changed. Reads only the keys in delta.';

create or replace function syncline.diff_fields(p_entity text, p_limit bigint default null, p_sample integer default null)
returns table (change text, _key text, unique_key jsonb, old jsonb, new jsonb)
language plpgsql stable
set work_mem = '64MB'
as $$
begin
    return query execute format(
        'select
            d.change,
            d._key,
            case when jsonb_typeof(d.identity) = ''object'' then d.identity end,
            case when d.change = ''updated'' then coalesce(fields.old, ''{}'') else d.old end,
            case when d.change = ''updated'' then coalesce(fields.new, ''{}'') else d.new end
        from (%s) as d
        left join lateral (
            select
                jsonb_object_agg(field.key, d.old -> field.key) as old,
                jsonb_object_agg(field.key, field.value) as new
            from jsonb_each(d.new) as field
            -- As texts: 1.0 and 1.00 are equal as jsonb.
            where d.change = ''updated'' and field.value::text is distinct from (d.old -> field.key)::text
        ) as fields on true',
        syncline.diff_query(p_entity, p_limit, p_sample)
    );
end
$$;
comment on function syncline.diff_fields(text, bigint, integer) is
'As diff, of an update only the fields that changed, old and new; with `p_sample` at most so many rows of each kind.';

create or replace function syncline.diff_summary(p_entity text)
returns table (
    build_id bigint,
    shows text,
    inserted bigint,
    updated bigint,
    deleted bigint,
    columns text[],
    columns_added text[],
    columns_dropped text[]
)
language sql stable
as $$
    select
        made.build_id,
        case when compared.is_failed then 'failed candidate' when compared.is_candidate then 'candidate' else 'last publish' end,
        made.rows_inserted,
        made.rows_updated,
        made.rows_deleted,
        here.names,
        array(select name from unnest(here.names) as name where name <> all (there.names)),
        array(select name from unnest(there.names) as name where name <> all (here.names))
    from syncline.compared_builds(p_entity) as compared
    left join syncline.builds as made on compared.new_build = made.build_id
    left join syncline.sides(p_entity) as side on true
    left join lateral (select array(select c ->> 'name' from jsonb_array_elements(made.columns) as c) as names) as here on true
    left join lateral (
        select array(select c ->> 'name' from jsonb_array_elements(syncline.table_columns(side.old_table::regclass)) as c) as names
        where side.old_table is not null
    ) as there on true
$$;
comment on function syncline.diff_summary(text) is
'What diff shows, in one row: of which build, rows inserted, updated and deleted as the build counted them, columns that came or went.';

create or replace function syncline.preview(p_run_id bigint)
returns table (
    entity text,
    build_id bigint,
    is_there boolean,
    inserted bigint,
    updated bigint,
    deleted bigint,
    row_errors bigint,
    conflicts bigint
)
language sql stable
as $$
    select
        result.entity,
        made.build_id,
        coalesce(e.next_build = made.build_id or (e.next_build is null and made.state = 'failed'), false),
        result.rows_inserted,
        result.rows_updated,
        result.rows_deleted,
        (select count(*) from syncline.row_errors as bad where bad.run_id = run.run_id and bad.entity = result.entity),
        result.conflicts_found
    from syncline.runs as run
    inner join syncline.results as result on run.run_id = result.run_id and run.attempt = result.attempt
    inner join syncline.entities as e on result.entity = e.entity
    left join lateral (
        select b.build_id, b.state
        from syncline.builds as b
        where b.run_id = run.run_id and b.attempt = run.attempt and b.entity = result.entity
        order by b.build_id desc
        limit 1
    ) as made on true
    where run.run_id = p_run_id
    order by result.entity
$$;
comment on function syncline.preview(bigint) is
'What a run''s candidates would change, entity by entity: counts, row errors, new conflicts, and whether the candidate stands, so that diff shows it; no `build_id` where nothing changed.';
