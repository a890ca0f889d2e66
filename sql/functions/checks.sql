-- Checks over the changed rows. A test that judges single rows, and that found none on the build that a candidate was
-- made from, can only find rows of the keys in delta: all others are the same in both.

create or replace function syncline.narrow_check(p_check jsonb) returns jsonb
language plpgsql
as $$
declare
    v_child record;
    v_parent record;
    v_column record;
    v_field record;
    v_pass record;
begin
    select * into v_child from syncline.checked_build(p_check ->> 'entity', (p_check ->> 'is_next')::boolean);
    select * into v_column from syncline.plain_column(v_child.version_table, p_check ->> 'column');
    if syncline.session_run() is null or v_column.type is null then
        return null;
    end if;
    -- What 'today' stands for is another date tomorrow.
    if p_check ->> 'test' = 'accepted_values' and v_column.category not in ('B', 'E', 'N', 'S') then
        return null;
    end if;
    select * into v_parent from syncline.checked_build(p_check ->> 'parent', (p_check ->> 'is_parent_next')::boolean);
    if p_check ->> 'parent' is not null then
        select * into v_field from syncline.plain_column(v_parent.version_table, p_check ->> 'field');
        -- What is equal between two types, or in an extension's, may differ in one of them: citext to text.
        if v_field.type is distinct from v_column.type
            or not exists (
                select from pg_catalog.pg_type as t where t.oid = v_column.type and t.typnamespace = 'pg_catalog'::regnamespace
            ) then
            return null;
        end if;
    end if;
    select
        pass.build_id = v_child.build_id as is_same_child,
        pass.parent_build is not distinct from v_parent.build_id as is_same_parent
    into v_pass
    from syncline.passes as pass
    where pass.definition = p_check ->> 'definition'
        and pass.build_id in (v_child.build_id, v_child.base_build)
        and (pass.parent_build is not distinct from v_parent.build_id or pass.parent_build = v_parent.base_build)
        and not exists (
            select
            from syncline.runs as run
            where run.run_id = syncline.session_run()
                and ((run.options ->> 'full_refresh')::boolean or (run.options ->> 'force_overwrite')::boolean)
        )
    order by is_same_child desc, is_same_parent desc
    limit 1;
    if v_pass.is_same_child is not null then
        -- The test follows in this transaction. Few keys are looked up by index: they have mostly just been written.
        perform set_config('random_page_cost', '1.1', true);
    end if;
    return jsonb_build_object(
        'definition', p_check ->> 'definition',
        'build_id', v_child.build_id,
        'parent_build', v_parent.build_id,
        'rows', case
            when v_pass.is_same_child is null then v_child.relation
            else format(
                '(select * from %s where %s%s) as narrowed',
                v_child.relation,
                syncline.changed_keys(v_child.delta, not v_pass.is_same_child),
                case when not v_pass.is_same_parent then format(
                    ' union all select * from %1$s where %2$s in ('
                    'select %3$s from %4$s where %5$s except select %3$s from %6$s where %5$s) and not (%7$s)',
                    v_child.relation, p_check ->> 'column', p_check ->> 'field', v_parent.base_table,
                    syncline.changed_keys(v_parent.delta, true), v_parent.relation,
                    syncline.changed_keys(v_child.delta, not v_pass.is_same_child)
                ) end
            )
        end
    );
end
$$;
comment on function syncline.narrow_check(jsonb) is
'The builds that a test of the session''s run reads, and the rows in which it can find any: all, those of the keys in delta, or none; of a relationships test also the children whose value left the parent. Null where the test does not judge single rows by themselves.';

create or replace function syncline.checked_build(p_entity text, p_is_next boolean)
returns table (build_id bigint, base_build bigint, relation text, delta text, version_table regclass, base_table text)
language sql stable
as $$
    select
        b.build_id,
        -- Delta tells the candidate from what is published, and from nothing else.
        case when b.build_id = e.next_build and b.base_build = e.current_build and not e.is_delta_all then b.base_build end,
        format('%I.%I', e.schema_name, e.entity || case when p_is_next then '_next' else '_current' end),
        format('%I.%I', e.schema_name, e.entity || '_delta'),
        to_regclass(format('%I.%I', e.schema_name, e.entity || '_v' || b.version)),
        format('%I.%I', e.schema_name, e.entity || '_v' || 3 - b.version)
    from syncline.entities as e
    inner join syncline.builds as b
        on b.build_id = case when p_is_next then coalesce(e.next_build, e.current_build) else e.current_build end
    where e.entity = p_entity
$$;
comment on function syncline.checked_build(text, boolean) is
'The build that next or current shows of an entity, the one whose other keys than those in delta it shares, and their relations.';

create or replace function syncline.plain_column(p_table regclass, p_written text)
returns table (type oid, category text)
language sql stable
as $$
    select t.oid, t.typcategory::text
    from pg_catalog.pg_attribute as a
    inner join pg_catalog.pg_type as t on a.atttypid = t.oid
    where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped
        and (
            p_written = '"' || replace(a.attname, '"', '""') || '"'
            or lower(p_written) = a.attname and quote_ident(a.attname) = a.attname
        )
$$;
comment on function syncline.plain_column(regclass, text) is
'The type of the column that is written so in SQL; no row where it is an expression or there is no such column.';

create or replace function syncline.changed_keys(p_delta text, p_has_changes boolean) returns text
language sql immutable
as $$
    select case when p_has_changes then format('_key in (select changed._key from %s as changed)', p_delta) else 'false' end
$$;
comment on function syncline.changed_keys(text, boolean) is 'The condition that a row''s key is in delta; false where nothing changed.';

create or replace function syncline.save_passes(p_passes jsonb) returns void
language plpgsql
as $$
begin
    perform syncline.hold_run();
    delete from syncline.passes as old
    using syncline.builds as b
    where b.build_id in (old.build_id, old.parent_build) and b.state in ('failed', 'superseded');
    with settled as (
        select b.build_id
        from syncline.entities as e
        inner join syncline.builds as b on b.build_id in (e.next_build, e.current_build)
        -- What was swapped meanwhile is not what every test read.
        where not exists (
            select
            from syncline.builds as swapped
            inner join syncline.publications as p on swapped.publication_id = p.publication_id
            inner join syncline.steps as s
                on s.run_id = syncline.session_run() and s.attempt = syncline.session_attempt() and s.step = 'build'
            where swapped.entity = e.entity and greatest(p.published_at, p.rolled_back_at) >= s.started_at
        )
    )

    insert into syncline.passes (definition, build_id, parent_build)
    select passed.definition, passed.build_id, passed.parent_build
    from jsonb_to_recordset(p_passes) as passed (definition text, build_id bigint, parent_build bigint)
    where passed.build_id in (select settled.build_id from settled)
        and (passed.parent_build is null or passed.parent_build in (select settled.build_id from settled))
    on conflict do nothing;
end
$$;
comment on function syncline.save_passes(jsonb) is
'Notes the tests that found no row, with the builds they read as far as those still stand; forgets those on builds that are gone.';
