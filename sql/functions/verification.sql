-- Proofs on the live database: that delta is right, and that what is published is what the records say.

create or replace function syncline.verify(p_entity text) returns table (problem text, _key text)
language plpgsql
as $$
declare
    v_row syncline.entities;
    v_list text;
    v_one regclass;
    v_two regclass;
begin
    perform syncline.check_known(array[p_entity]);
    perform syncline.lock_entity(p_entity);
    select * into v_row from syncline.entities where entity = p_entity;
    if v_row.is_delta_all then
        return;
    end if;
    v_one := format('%I.%I', v_row.schema_name, p_entity || '_v1')::regclass;
    v_two := format('%I.%I', v_row.schema_name, p_entity || '_v2')::regclass;
    if not syncline.same_columns(syncline.table_columns(v_one), syncline.table_columns(v_two)) then
        problem := 'the versions have different columns, and delta is not "all"';
        return next;
        return;
    end if;
    select string_agg(quote_ident(name), ', ' order by name) into v_list
    from jsonb_to_recordset(syncline.table_columns(v_one)) as c (name text);
    return query execute format(
        'with differing as (
            select distinct uneven._key
            from (
                select both_sides._key
                from (
                    select _key, md5(record_send(row(%1$s))) as row_hash, 1 as side from %2$s
                    union all
                    select _key, md5(record_send(row(%1$s))), -1 from %3$s
                ) as both_sides
                group by both_sides._key, row_hash
                having sum(side) <> 0
            ) as uneven
        )
        select
            case when d._key is null then ''the versions differ here, and delta does not say so''
            else ''delta names it, and the versions agree here'' end,
            coalesce(found._key, d._key)
        from differing as found
        full join %4$I.%5$I as d on d._key = found._key
        where d._key is null or found._key is null',
        v_list, v_one, v_two, v_row.schema_name, p_entity || '_delta'
    );
end
$$;
comment on function syncline.verify(text) is
'Proves that delta holds exactly the keys on which the two versions differ; returns a row for each that breaks it.';

create or replace function syncline.verify_raw(p_entity text) returns table (problem text, _key text)
language plpgsql
as $$
declare
    v_spec jsonb := syncline.published_model(p_entity);
    v_row syncline.entities;
    v_base syncline.builds;
    v_build syncline.builds;
    v_sql text;
    v_input text;
begin
    perform syncline.lock_entity(p_entity);
    perform syncline.settle_values();
    select * into v_row from syncline.entities where entity = p_entity for no key update;
    select * into v_base from syncline.builds where build_id = v_row.current_build;
    v_sql := v_spec ->> 'sql';
    for v_input in select jsonb_object_keys(v_base.inputs) loop
        if (select current_build from syncline.entities where entity = v_input) is distinct from (v_base.inputs ->> v_input)::bigint then
            return query select format('it was built from another state of %s than is published: run again first', v_input), null::text;
            return;
        end if;
        v_sql := replace(v_sql, format('"%s_next"', v_input), format('"%s_current"', v_input));
    end loop;
    v_build := v_base;
    v_build.build_id := nextval(pg_get_serial_sequence('syncline.builds', 'build_id'));
    v_sql := syncline.open_workspace(p_entity, v_sql, v_spec -> 'streams');
    perform set_config('syncline.build_id', v_build.build_id::text, true), set_config('syncline.entity', p_entity, true);
    perform syncline.open_substitutes(p_entity, v_spec -> 'streams', v_base.loads, true);
    perform syncline.find_differing(
        v_build, v_base, v_row.schema_name, v_sql, v_spec, syncline.merge_mark(v_spec ->> 'sql'), true, false
    );
    return query execute format(
        'select ''its rows are not what its records give'', differing._key from %I.differing', 'syncline_' || p_entity
    );
    delete from syncline.row_errors where build_id = v_build.build_id;
    perform syncline.close_workspace(p_entity, v_spec -> 'streams');
    perform set_config('syncline.build_id', '', true);
end
$$;
comment on function syncline.verify_raw(text) is
'Compares what is published with a full evaluation of its model over the records that it was built from; returns a row for each key that comes out otherwise. Raises SY201, SY305 or SY364 where there is nothing to compare.';
