-- Pointing views at tables, under locks that never make a reader wait long.

create or replace function syncline.table_columns(p_table regclass) returns jsonb
language sql stable
as $$
    select coalesce(
        jsonb_agg(
            jsonb_build_object(
                'name', att.attname,
                'type', format_type(att.atttypid, att.atttypmod)
                || case when att.attcollation <> typ.typcollation then ' collate ' || att.attcollation::regcollation else '' end
            ) order by att.attnum
        ),
        '[]'
    )
    from pg_catalog.pg_attribute as att
    inner join pg_catalog.pg_type as typ on att.atttypid = typ.oid
    where att.attrelid = p_table and att.attnum > 0 and not att.attisdropped
$$;
comment on function syncline.table_columns(regclass) is 'The columns of a table or view, in order: name and type, with its collation where that is not the type''s own.';

create or replace function syncline.same_columns(p_one jsonb, p_other jsonb) returns boolean
language sql immutable
as $$ select p_one @> p_other and p_other @> p_one $$;
comment on function syncline.same_columns(jsonb, jsonb) is 'Whether two lists of columns agree, in whatever order.';

create or replace function syncline.dependents(p_relation regclass) returns text[]
language sql stable
as $$
    select coalesce(array_agg(distinct rule.ev_class::regclass::text), '{}')
    from pg_catalog.pg_depend as dep
    inner join pg_catalog.pg_rewrite as rule on dep.objid = rule.oid
    where dep.classid = 'pg_catalog.pg_rewrite'::regclass
        and dep.refclassid = 'pg_catalog.pg_class'::regclass
        and dep.refobjid = p_relation
        and rule.ev_class <> p_relation
$$;
comment on function syncline.dependents(regclass) is 'The views that read a relation.';

create or replace function syncline.check_view_can_take(p_view regclass, p_columns jsonb, p_may_recreate boolean)
returns void
language plpgsql
as $$
declare
    v_lost text;
begin
    if p_may_recreate and syncline.dependents(p_view) = '{}' then
        return;
    end if;
    select string_agg(
        case
            when new.name is null then format('%s is gone', old.name)
            else format('%s was %s and is now %s', old.name, old.type, new.type)
        end, ', '
    ) into v_lost
    from jsonb_to_recordset(syncline.table_columns(p_view)) as old (name text, type text)
    left join jsonb_to_recordset(p_columns) as new (name text, type text) on old.name = new.name
    where new.type is distinct from old.type;
    if v_lost is not null then
        raise exception using
            errcode = 'SY203',
            message = format('%s cannot take this change: %s', p_view, v_lost),
            hint = format(
                case
                    when p_may_recreate then 'To make the view anew, which on_schema_change=''recreate'' allows, nothing else may read it%s: drop these first.'
                    else 'Readers rely on these columns%s. Keep them (a dropped one as `null::type as name`), or say on_schema_change=''recreate''.'
                end,
                coalesce(' (views: ' || nullif(array_to_string(syncline.dependents(p_view), ', '), '') || ')', '')
            );
    end if;
end
$$;
comment on function syncline.check_view_can_take(regclass, jsonb, boolean) is
'Raises SY203 where a column that the view shows is dropped, renamed or retyped, unless the view may be made anew and nothing else reads it.';

create or replace function syncline.may_recreate(p_signature text) returns boolean
language sql stable
as $$
    select coalesce(
        (select spec ->> 'on_schema_change' = 'recreate' from syncline.models where signature = p_signature), false
    )
$$;
comment on function syncline.may_recreate(text) is 'Whether the model of this signature says `on_schema_change: recreate`.';

create or replace function syncline.point_current(
    p_schema text, p_entity text, p_version smallint, p_may_recreate boolean
) returns void
language plpgsql
as $$
declare
    v_view regclass := to_regclass(format('%I.%I', p_schema, p_entity || '_current'));
    v_table regclass := format('%I.%I', p_schema, p_entity || '_v' || p_version);
begin
    if not p_may_recreate or syncline.table_columns(v_view) <@ syncline.table_columns(v_table) then
        perform syncline.point_view(p_schema, p_entity || '_current', p_entity || '_v' || p_version);
        return;
    end if;
    perform syncline.recreate_view(v_view, p_schema, p_entity || '_current', p_entity || '_v' || p_version);
exception when dependent_objects_still_exist then
    perform syncline.check_view_can_take(v_view, syncline.table_columns(v_table), true);
end
$$;
comment on function syncline.point_current(text, text, smallint, boolean) is
'Points an entity''s current view at a version; makes it anew where that lacks columns and the model allows it. Raises SY203 where other objects read it then.';

create or replace function syncline.recreate_view(p_old regclass, p_schema text, p_view text, p_table text) returns void
language plpgsql
as $$
declare
    v_old pg_catalog.pg_class;
    v_statements text[];
    v_statement text;
begin
    select * into v_old from pg_catalog.pg_class where oid = p_old;
    -- What hangs on the old view is written down as statements first: it goes with it.
    select array_agg(made.statement order by made.place) into v_statements
    from (
        select
            1 as place,
            format('alter view %I.%I owner to %I', p_schema, p_view, pg_get_userbyid(v_old.relowner)) as statement
        union all
        select 2, format('revoke all on %I.%I from %I', p_schema, p_view, pg_get_userbyid(v_old.relowner))
        where v_old.relacl is not null
        union all
        select
            3,
            format(
                'grant %s on %I.%I to %s %s', given.privilege_type, p_schema, p_view,
                case when given.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(given.grantee)) end,
                case when given.is_grantable then 'with grant option' end
            )
        from aclexplode(v_old.relacl) as given
        union all
        select
            4,
            format(
                'grant %s (%I) on %I.%I to %s %s', given.privilege_type, att.attname, p_schema, p_view,
                case when given.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(given.grantee)) end,
                case when given.is_grantable then 'with grant option' end
            )
        from pg_catalog.pg_attribute as att, aclexplode(att.attacl) as given
        where att.attrelid = p_old and not att.attisdropped
            and syncline.table_columns(format('%I.%I', p_schema, p_table)::regclass)
            @> jsonb_build_array(jsonb_build_object('name', att.attname))
        union all
        select 5, format('comment on view %I.%I is %L', p_schema, p_view, obj_description(p_old, 'pg_class'))
        where obj_description(p_old, 'pg_class') is not null
        union all
        select 6, format('comment on column %I.%I.%I is %L', p_schema, p_view, att.attname, col_description(p_old, att.attnum))
        from pg_catalog.pg_attribute as att
        where att.attrelid = p_old and col_description(p_old, att.attnum) is not null
            and syncline.table_columns(format('%I.%I', p_schema, p_table)::regclass)
            @> jsonb_build_array(jsonb_build_object('name', att.attname))
    ) as made;
    execute format('drop view %s', p_old);
    execute format(
        'create view %I.%I %s as select * from %I.%I', p_schema, p_view,
        (
            select 'with (' || string_agg(format('%I = %L', split_part(o, '=', 1), split_part(o, '=', 2)), ', ') || ')'
            from unnest(v_old.reloptions) as o
        ),
        p_schema, p_table
    );
    foreach v_statement in array coalesce(v_statements, '{}') loop
        execute v_statement;
    end loop;
end
$$;
comment on function syncline.recreate_view(regclass, text, text, text) is
'Makes a view anew on a table, with the owner, grants, options and comments of the old one; never what depends on it.';

create or replace function syncline.point_view(p_schema text, p_view text, p_table text) returns void
language plpgsql
as $$
declare
    v_view regclass := to_regclass(format('%I.%I', p_schema, p_view));
    v_table regclass := format('%I.%I', p_schema, p_table);
    v_columns text;
    v_options text;
begin
    -- The view's columns in its own order, null where the table lacks one, then the table's new ones.
    select string_agg(
        case when t.name is null then format('null::%s as %I', v.type, v.name) else quote_ident(coalesce(v.name, t.name)) end,
        ', ' order by v.place, t.place
    ) into v_columns
    from rows from (
        jsonb_to_recordset(case when v_view is null then '[]' else syncline.table_columns(v_view) end)
        as (name text, type text)
    ) with ordinality as v (name, type, place)
    full join rows from (
        jsonb_to_recordset(syncline.table_columns(v_table)) as (name text, type text)
    ) with ordinality as t (name, type, place) on v.name = t.name;
    select string_agg(format('%I = %L', split_part(o, '=', 1), split_part(o, '=', 2)), ', ') into v_options
    from pg_catalog.pg_class, unnest(reloptions) as o
    where oid = v_view;
    execute format(
        'create or replace view %I.%I %s as select %s from %s',
        p_schema, p_view, 'with (' || v_options || ')', v_columns, v_table
    );
end
$$;
comment on function syncline.point_view(text, text, text) is
'Points a view at a table, keeping its columns'' order and its options, owner and grants; takes ACCESS EXCLUSIVE on the view.';

create or replace function syncline.execute_politely(p_statement text, p_relation regclass) returns void
language plpgsql
as $$
declare
    v_until timestamptz := clock_timestamp() + interval '60 s';
    v_timeout text := current_setting('lock_timeout');
begin
    if current_setting('syncline.is_swapping', true) = 'on' then
        execute p_statement;
        return;
    end if;
    -- A waiting ACCESS EXCLUSIVE lock queues every later reader, so it waits 100 ms at a time. Not by `lock table`:
    -- of a view that would lock the tables that it reads, too.
    loop
        begin
            perform set_config('lock_timeout', '100ms', true);
            execute p_statement;
            perform set_config('lock_timeout', v_timeout, true);
            return;
        exception when lock_not_available then
            if clock_timestamp() > v_until then
                raise exception using
                    errcode = 'SY104',
                    message = format('%s is in use: %s', p_relation, syncline.lock_holders(p_relation)),
                    hint = 'End these sessions or wait for them, then run again.';
            end if;
        end;
        perform pg_sleep(0.05 + random() * 0.2);
    end loop;
end
$$;
comment on function syncline.execute_politely(text, regclass) is
'Changes the definition of a relation, trying for its lock 100 ms at a time for up to a minute; raises SY104 with who holds it. Inside a swap of current views it tries once, with the swap''s own timeout.';

create or replace function syncline.lock_holders(p_relation regclass) returns text
language sql stable
as $$
    select coalesce(
        string_agg(distinct format('pid %s (%s, %s)', held.pid, act.application_name, act.state), ', '), 'nobody any more'
    )
    from pg_catalog.pg_locks as held
    left join pg_catalog.pg_stat_activity as act on held.pid = act.pid
    where held.relation = p_relation and held.granted and held.pid <> pg_backend_pid()
$$;
comment on function syncline.lock_holders(regclass) is 'Who holds locks on a relation, without the texts of their queries.';

create or replace function syncline.point_next(p_entity text, p_version smallint) returns void
language plpgsql
as $$
declare
    v_schema text;
    v_view regclass;
    v_table regclass;
begin
    select schema_name into v_schema from syncline.entities where entity = p_entity;
    v_view := to_regclass(format('%I.%I', v_schema, p_entity || '_next'));
    v_table := format('%I.%I', v_schema, p_entity || '_v' || p_version);
    if v_view is not null then
        if exists (
            select 1
            from pg_catalog.pg_depend as dep
            inner join pg_catalog.pg_rewrite as rule on dep.objid = rule.oid
            where rule.ev_class = v_view and dep.refobjid = v_table
        ) and syncline.same_columns(syncline.table_columns(v_view), syncline.table_columns(v_table)) then
            return;
        end if;
        perform syncline.execute_politely(format('drop view %s', v_view), v_view);
    end if;
    perform syncline.point_view(v_schema, p_entity || '_next', p_entity || '_v' || p_version);
    execute format('comment on view %I.%I is %L', v_schema, p_entity || '_next', 'The candidate of ' || p_entity || '.');
exception when dependent_objects_still_exist then
    raise exception using
        errcode = 'SY203',
        message = format('other objects read %s: %s', v_view, array_to_string(syncline.dependents(v_view), ', ')),
        hint = format('Let them read %s_current, or drop them.', p_entity);
end
$$;
comment on function syncline.point_next(text, smallint) is 'Points an entity''s next view at one of its versions.';
