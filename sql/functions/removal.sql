-- Taking an entity or a stream away for good.

create or replace function syncline.drop_entity(p_entity text) returns void
language plpgsql
as $$
declare
    v_row syncline.entities;
    v_view regclass;
    v_reader text;
begin
    perform syncline.check_known(array[p_entity]);
    perform pg_advisory_xact_lock(syncline.lock_class('entity'), hashtext(p_entity));
    select * into v_row from syncline.entities where entity = p_entity for update;
    select string_agg(e.entity, ', ' order by e.entity) into v_reader
    from syncline.entities as e
    where p_entity = any(e.parents) and e.entity <> p_entity;
    if v_reader is not null then
        raise exception using
            errcode = 'SY304',
            message = format('%s is read by %s', p_entity, v_reader),
            hint = 'Take it out of their models and tests and run once, or drop them first.';
    end if;
    foreach v_view in array array[
        to_regclass(format('%I.%I', v_row.schema_name, p_entity || '_next')),
        to_regclass(format('%I.%I', v_row.schema_name, p_entity || '_current'))
    ] loop
        if v_view is not null then
            perform syncline.execute_politely(format('drop view %s', v_view), v_view);
        end if;
    end loop;
    perform syncline.drop_version(p_entity, v_row.schema_name, 1::smallint);
    perform syncline.drop_version(p_entity, v_row.schema_name, 2::smallint);
    execute format('drop table if exists %I.%I', v_row.schema_name, p_entity || '_delta');
    if syncline.has_history(p_entity) then
        execute format(
            'drop function if exists %1$I.%2$I(timestamptz); drop table if exists %1$I.%3$I',
            v_row.schema_name, p_entity || '_as_of', p_entity || '_history'
        );
    end if;
    delete from syncline.row_errors where entity = p_entity;
    delete from syncline.builds where entity = p_entity;
    delete from syncline.entities where entity = p_entity;
exception when dependent_objects_still_exist then
    raise exception using
        errcode = 'SY203',
        message = format('other objects read %s: %s', v_view, array_to_string(syncline.dependents(v_view), ', ')),
        hint = 'Drop them first; nothing was changed.';
end
$$;
comment on function syncline.drop_entity(text) is
'Drops an entity for good: its views, both versions, delta, history, changes, conflicts, overrides, builds and row errors; external references stay. Refuses (SY304, SY203) where another entity or object reads it.';

create or replace function syncline.drop_stream(p_source text, p_stream text) returns void
language plpgsql
as $$
declare
    v_reader text;
begin
    perform pg_advisory_xact_lock(syncline.lock_class('stream'), hashtext(p_source || '.' || p_stream));
    perform 1 from syncline.streams where source = p_source and stream = p_stream;
    if not found then
        raise exception using
            errcode = 'SY201',
            message = format('there is no stream %s.%s in the database', p_source, p_stream),
            hint = 'Look at `syncline status` for the known ones.';
    end if;
    select string_agg(distinct e.entity, ', ') into v_reader
    from syncline.entities as e
    inner join syncline.builds as b on b.build_id in (e.current_build, e.next_build)
    where b.loads ? (p_source || '.' || p_stream);
    if v_reader is not null then
        raise exception using
            errcode = 'SY304',
            message = format('%s.%s feeds %s', p_source, p_stream, v_reader),
            hint = 'Let their models read something else and run once, or drop them first: syncline.drop_entity().';
    end if;
    execute format(
        'drop view %1$I.%2$I; drop table %1$I.%3$I, %1$I.%4$I',
        'raw_' || p_source, p_stream, p_stream || '_json', p_stream || '_staged'
    );
    delete from syncline.row_errors where source = p_source and stream = p_stream;
    delete from syncline.loads where source = p_source and stream = p_stream;
    delete from syncline.streams where source = p_source and stream = p_stream;
exception when dependent_objects_still_exist then
    raise exception using
        errcode = 'SY203',
        message = format('other objects read raw_%s.%s', p_source, p_stream),
        hint = 'Drop them first; nothing was changed.';
end
$$;
comment on function syncline.drop_stream(text, text) is
'Drops a stream for good: its records, loads and row errors. Refuses (SY304, SY203) where an entity or another object reads it.';
