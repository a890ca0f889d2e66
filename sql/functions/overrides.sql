-- Overrides: values that people set for one field of one row, which outrank every source until they are lifted.

create or replace function syncline.fits(p_value jsonb, p_type text) returns boolean
language plpgsql stable
as $$
begin
    execute format(
        'select field.value from jsonb_to_record(jsonb_build_object(''value'', $1)) as field (value %s)',
        split_part(p_type, ' collate ', 1)
    ) using p_value;
    return true;
exception when others then
    return false;
end
$$;
comment on function syncline.fits(jsonb, text) is 'Whether a JSON value can be a value of the type.';

create or replace function syncline.overrides_in_force(p_entity text, p_touch bigint) returns setof syncline.overrides
language sql stable
as $$
    select *
    from syncline.overrides
    where entity = p_entity and touch_id <= p_touch and (lift_touch_id is null or lift_touch_id > p_touch)
$$;
comment on function syncline.overrides_in_force(text, bigint) is
'The overrides that a build which knows of this touch heeds.';

create or replace function syncline.find_key(p_entity text, p_key text) returns text
language plpgsql stable
as $$
declare
    v_row syncline.entities;
    v_key text;
    v_type text;
begin
    perform syncline.check_published(p_entity);
    select * into v_row from syncline.entities where entity = p_entity;
    execute format('select _key from %I.%I where _key = $1 limit 1', v_row.schema_name, p_entity || '_current')
    into v_key using p_key;
    if v_key is null and cardinality(v_row.unique_key) = 1 then
        select c.type into v_type
        from jsonb_to_recordset(syncline.table_columns(format('%I.%I', v_row.schema_name, p_entity || '_current')::regclass))
            as c (name text, type text)
        where c.name = v_row.unique_key[1];
        if syncline.fits(to_jsonb(p_key), v_type) then
            execute format(
                'select _key from %I.%I where %I = $1::%s limit 1',
                v_row.schema_name, p_entity || '_current', v_row.unique_key[1], split_part(v_type, ' collate ', 1)
            ) into v_key using p_key;
        end if;
    end if;
    return coalesce(v_key, p_key);
end
$$;
comment on function syncline.find_key(text, text) is
'The _key of a published row by its _key, or by its unique key where that is one column; what was given where there is no such row.';

create or replace function syncline.check_published(p_entity text) returns void
language plpgsql stable
as $$
begin
    perform syncline.check_known(array[p_entity]);
    if (select current_build from syncline.entities where entity = p_entity) is null then
        raise exception using
            errcode = 'SY305',
            message = format('%s was never published', p_entity),
            hint = 'Run `syncline run` first.';
    end if;
end
$$;
comment on function syncline.check_published(text) is 'Raises SY201 for an entity that was never built, SY305 for one that was never published.';

create or replace function syncline.set_override(
    p_entity text,
    p_key text,
    p_column text,
    p_value jsonb default null,
    p_source text default null,
    p_reason text default null,
    p_set_by text default current_user
) returns bigint
language plpgsql
as $$
declare
    v_row syncline.entities;
    v_current syncline.builds;
    v_override syncline.overrides;
    v_content jsonb;
    v_touch bigint;
begin
    perform syncline.check_published(p_entity);
    select * into v_row from syncline.entities where entity = p_entity for key share;
    select * into v_current from syncline.builds where build_id = v_row.current_build;
    perform syncline.check_override(p_entity, v_current, p_column, p_value, p_source);
    v_content := syncline.row_to_override(v_row, p_key);
    v_touch := syncline.touch(p_entity, array[p_key]);
    -- What another override shows is not what it displaced.
    select displaced into v_override.displaced
    from syncline.overrides_in_force(p_entity, v_current.last_touch)
    where _key = p_key and column_name = p_column;
    if not found then
        v_override.displaced := v_content -> p_column;
    end if;
    update syncline.overrides set lifted_by = p_set_by, lifted_at = clock_timestamp(), lift_touch_id = v_touch
    where entity = p_entity and _key = p_key and column_name = p_column and lifted_at is null;
    insert into syncline.overrides (entity, _key, column_name, value, source, displaced, reason, set_by, touch_id)
    values (
        p_entity, p_key, p_column, case when p_source is null then coalesce(p_value, 'null') end, p_source,
        v_override.displaced, p_reason, p_set_by, v_touch
    )
    returning override_id into v_override.override_id;
    update syncline.conflicts set
        state = 'resolved', decided_by = p_set_by, decided_at = clock_timestamp(), reason = p_reason
    where entity = p_entity and _key = p_key and column_name = p_column and state in ('open', 'ignored');
    return v_override.override_id;
end
$$;
comment on function syncline.set_override(text, text, text, jsonb, text, text, text) is
'Sets a field of one published row for good, to a value or to what one source says; the next run builds it. Takes the place of an override that was there. Returns its number. Raises SY201 and SY305 for an unknown entity, SY261 for a column, source or value that it cannot have, SY361 where there is not exactly one such row.';

create or replace function syncline.row_to_override(p_row syncline.entities, p_key text) returns jsonb
language plpgsql stable
as $$
declare
    v_rows jsonb;
begin
    execute format(
        'select coalesce(jsonb_agg(to_jsonb(t.*)), ''[]'') from (select * from %I.%I where _key = $1 limit 2) as t',
        p_row.schema_name, p_row.entity || '_current'
    ) into v_rows using p_key;
    if jsonb_array_length(v_rows) <> 1 then
        raise exception using
            errcode = 'SY361',
            message = format(
                case when v_rows = '[]' then 'there is no row with _key %2$s in %1$s' else 'several rows of %1$s have _key %2$s' end,
                p_row.entity, p_key
            ),
            hint = case
                when v_rows = '[]' then 'It may be gone since, and its conflicts with it: look at `syncline history`.'
                else 'An override is for the one row of a key.'
            end;
    end if;
    return v_rows -> 0;
end
$$;
comment on function syncline.row_to_override(syncline.entities, text) is 'The one published row of a key; raises SY361 where there is none, or several.';

create or replace function syncline.check_override(
    p_entity text, p_build syncline.builds, p_column text, p_value jsonb, p_source text
) returns void
language plpgsql stable
as $$
declare
    v_type text;
    v_merge jsonb;
    v_field jsonb;
    v_wrong text;
    v_hint text;
begin
    select c.type into v_type from jsonb_to_recordset(p_build.columns) as c (name text, type text) where c.name = p_column;
    select syncline.merge_mark(m.spec ->> 'sql') into v_merge from syncline.models as m where m.signature = p_build.signature;
    v_field := v_merge -> 'fields' -> p_column;
    if v_type is null or p_column in ('_key', '_missing_since') then
        v_wrong := format('%s has no column %s that can be overridden', p_entity, p_column);
        v_hint := 'Its columns: ' || (select string_agg(c.name, ', ') from jsonb_to_recordset(p_build.columns) as c (name text) where c.name not like '\_%') || '.';
    elsif p_value is not null and p_source is not null then
        v_wrong := 'an override has a value or a source, not both';
        v_hint := 'Leave one out.';
    elsif p_source is not null and not coalesce(v_field -> 'truths' ? p_source or v_field -> 'references' ? p_source, false) then
        v_wrong := format('%s.%s takes nothing from a source %s', p_entity, p_column, p_source);
        v_hint := coalesce(
            'Its sources: ' || nullif((
                select string_agg(name, ', ')
                from jsonb_array_elements_text((v_field -> 'truths') || (v_field -> 'references')) as name
            ), '') || '.',
            'Give a value instead.'
        );
    elsif p_source is null and not syncline.fits(p_value, v_type) then
        v_wrong := format('the value does not fit %s.%s, which is %s', p_entity, p_column, v_type);
        v_hint := case
            when v_type ~ '^(smallint|integer|bigint|numeric|real|double precision)' then 'Write a number as 5.10: no comma, no currency.'
            when v_type = 'date' then 'Write a date as 2026-11-22.'
            when v_type ~ '^timestamp' then 'Write a time as 2026-11-22T10:00:00Z.'
            when v_type = 'boolean' then 'Write true or false.'
            else 'Write it as JSON has it: a text in quotes, a list as ["a", "b"].'
        end;
    end if;
    if v_wrong is not null then
        raise exception using errcode = 'SY261', message = v_wrong, hint = v_hint;
    end if;
end
$$;
comment on function syncline.check_override(text, syncline.builds, text, jsonb, text) is
'Raises SY261 where a published entity cannot have such an override.';

create or replace function syncline.lift_override(
    p_entity text, p_key text, p_column text, p_lifted_by text default current_user
) returns bigint
language plpgsql
as $$
declare
    v_override_id bigint;
    v_touch bigint;
begin
    perform syncline.check_known(array[p_entity]);
    v_touch := syncline.touch(p_entity, array[p_key]);
    update syncline.overrides set lifted_by = p_lifted_by, lifted_at = clock_timestamp(), lift_touch_id = v_touch
    where entity = p_entity and _key = p_key and column_name = p_column and lifted_at is null
    returning override_id into v_override_id;
    if v_override_id is null then
        raise exception using
            errcode = 'SY362',
            message = format('no override is in force for %s %s %s', p_entity, p_key, p_column),
            hint = 'Look at `syncline conflicts list --overrides`.';
    end if;
    update syncline.conflicts set state = 'open', decided_by = p_lifted_by, decided_at = clock_timestamp(), reason = null
    where entity = p_entity and _key = p_key and column_name = p_column and state = 'resolved';
    return v_override_id;
end
$$;
comment on function syncline.lift_override(text, text, text, text) is
'Lifts the override of a field: the next run builds what the sources say, or what the override had displaced. Returns its number. Raises SY362 where there is none.';

create or replace function syncline.list_overrides(
    p_entity text default null, p_key text default null, p_is_lifted boolean default false, p_limit bigint default null
) returns table (
    override_id bigint,
    entity text,
    _key text,
    column_name text,
    value jsonb,
    source text,
    displaced jsonb,
    reason text,
    set_by text,
    set_at timestamptz,
    lifted_by text,
    lifted_at timestamptz,
    status text
)
language sql stable
as $$
    select
        o.override_id, o.entity, o._key, o.column_name, o.value, o.source,
        case when not syncline.is_redacted(o.entity) then o.displaced end,
        o.reason, o.set_by, o.set_at,
        o.lifted_by, o.lifted_at,
        case
            when o.lift_touch_id <= b.last_touch then 'lifted'
            when o.lifted_at is not null then 'lifted, the next run builds it'
            when not b.columns @> jsonb_build_array(jsonb_build_object('name', o.column_name)) then 'unused: the entity has no such column any more'
            when o.touch_id > b.last_touch then 'the next run builds it'
            else 'in force'
        end
    from syncline.overrides as o
    inner join syncline.entities as e on o.entity = e.entity
    left join syncline.builds as b on e.current_build = b.build_id
    where (p_entity is null or o.entity = p_entity)
        and (p_key is null or o._key = p_key)
        and (p_is_lifted or o.lifted_at is null)
    order by o.override_id desc
    limit p_limit
$$;
comment on function syncline.list_overrides(text, text, boolean, bigint) is
'Overrides, newest first: those not lifted, or all; with what has become of each. What they displaced is not told of redacted streams.';

create or replace function syncline.is_redacted(p_entity text) returns boolean
language sql stable
as $$
    select exists (
        select
        from syncline.entities as e
        inner join syncline.builds as b on e.current_build = b.build_id
        inner join syncline.models as m on b.signature = m.signature
        where e.entity = p_entity and (m.spec ->> 'redact')::boolean
    )
$$;
comment on function syncline.is_redacted(text) is 'Whether what is published of an entity reads a redacted stream.';

create or replace function syncline.has_overrides(p_entity text, p_touch bigint) returns boolean
language sql stable
as $$
    select exists (
        select 1 from syncline.overrides
        where entity = p_entity and (lift_touch_id is null or lift_touch_id > p_touch)
    )
$$;
comment on function syncline.has_overrides(text, bigint) is
'Whether any override of the entity was in force at this touch, or is since.';

-- Inside a build: `plain` is the active version as it would be without the overrides in it.

create or replace function syncline.open_plain(
    p_build syncline.builds, p_base syncline.builds, p_is_all boolean
) returns void
language plpgsql
as $$
declare
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_list text;
begin
    execute format(
        'create unlogged table %s.displaced as
        select o._key, jsonb_object_agg(o.column_name, coalesce(o.displaced, ''null'')) as patch
        from syncline.overrides_in_force($1, $2) as o
        inner join jsonb_to_recordset($3) as c (name text, type text) on o.column_name = c.name
        where syncline.fits(o.displaced, c.type)
        group by o._key', v_work
    ) using p_build.entity, p_base.last_touch, p_build.columns;
    select string_agg(format('(jsonb_populate_record(base.*, displaced.patch)).%1$I', name), ', ' order by place) into v_list
    from rows from (jsonb_to_recordset(p_build.columns) as (name text)) with ordinality as c (name, place);
    -- Of a few keys it is written down: a view of two parts would be read whole for each build.
    execute format(
        'create %4$s %1$s.plain as
        select base.* from %1$s.base where %3$s not exists (select 1 from %1$s.displaced where displaced._key = base._key)
        union all
        select %2$s from %1$s.base inner join %1$s.displaced on displaced._key = base._key where %3$s true',
        v_work, v_list,
        case when p_is_all then '' else format('base._key in (select changed._key from %s.changed) and', v_work) end,
        case when p_is_all then 'view' else 'unlogged table' end
    );
    if not p_is_all then
        execute format('analyze %s.plain', v_work);
    end if;
end
$$;
comment on function syncline.open_plain(syncline.builds, syncline.builds, boolean) is
'Makes `plain`: the active version with what its overrides displaced, of the keys that are looked at.';

create or replace function syncline.apply_overrides(
    p_build syncline.builds, p_base syncline.builds, p_merge jsonb
) returns void
language plpgsql
as $$
declare
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_list text;
    v_derived text;
    v_set text;
    v_from text;
    v_keys text[];
    v_count bigint;
begin
    select string_agg(quote_ident(name), ', ') into v_list from jsonb_to_recordset(p_build.columns) as c (name text);
    -- Rows that stay without a record of theirs heed overrides, too.
    execute format(
        'with carried as (
            update %1$s.kept set is_carried = true
            where not is_carried and _key in (
                select o._key from syncline.overrides as o
                where o.entity = $1 and (o.lift_touch_id is null or o.lift_touch_id > $2)
            )
            returning _key
        )
        insert into %1$s.rows (%2$s) select %2$s from %1$s.plain where _key in (select carried._key from carried)',
        v_work, v_list
    ) using p_build.entity, p_base.last_touch;
    -- What an override displaces is what the row would hold without it, when it first comes into force for it.
    execute format(
        'update syncline.overrides as o set displaced = to_jsonb(r.*) -> o.column_name
        from %1$s.rows as r
        where o.entity = $1 and o._key = r._key and o.touch_id <= $3 and (o.lift_touch_id is null or o.lift_touch_id > $3)
            and (o.touch_id > $2 or not exists (select 1 from %1$s.base where base._key = r._key))',
        v_work
    ) using p_build.entity, p_base.last_touch, p_build.last_touch;
    execute format(
        'select array_agg(o._key) from syncline.overrides as o
        where o.entity = $1 and o.lifted_at is null and exists (select 1 from %s.rows as r where r._key = o._key)', v_work
    ) into v_keys using p_build.entity;
    perform syncline.add_row_error(o._key, null, o.column_name, c.type, o.value::text, 'the override does not fit the column any more', 'warning')
    from syncline.overrides_in_force(p_build.entity, p_build.last_touch) as o
    inner join jsonb_to_recordset(p_build.columns) as c (name text, type text) on o.column_name = c.name
    where o.source is null and not syncline.fits(o.value, c.type) and o._key = any(v_keys);
    execute format(
        'create unlogged table %1$s.patches as
        select o._key, jsonb_object_agg(o.column_name, said.value) as patch
        from syncline.overrides_in_force($1, $2) as o
        inner join jsonb_to_recordset($3) as c (name text, type text) on o.column_name = c.name
        %2$s
        where said.value is not null and (o.source is not null or syncline.fits(o.value, c.type))
        group by o._key',
        v_work,
        case
            when p_merge is null then 'cross join lateral (select o.value) as said (value)'
            else format(
                -- Of a row that only stays nothing is said: it keeps what it shows.
                'left join %1$s.rows as r on r._key = o._key and o.source is not null
                left join %1$s.base on base._key = r._key and r._conflicts is null and o.touch_id <= %2$s
                cross join lateral (
                    select case when o.source is null then o.value else coalesce(
                        nullif(r._conflicts -> o.column_name -> o.source, ''null''), nullif(to_jsonb(base.*) -> o.column_name, ''null'')
                    ) end
                ) as said (value)', v_work, p_base.last_touch
            )
        end
    ) using p_build.entity, p_build.last_touch, p_build.columns;
    get diagnostics v_count = row_count;
    if v_count = 0 then
        return;
    end if;
    select
        string_agg(quote_ident(c.name), ', ' order by c.place),
        string_agg(format('patched.%I', c.name), ', ' order by c.place),
        string_agg(format('%I = (%s)', c.name, p_merge -> 'derived' ->> c.name), ', ' order by c.place)
            filter (where p_merge -> 'derived' ? c.name)
    into v_set, v_from, v_derived
    from rows from (jsonb_to_recordset(p_build.columns) as (name text)) with ordinality as c (name, place)
    where c.name <> '_key';
    -- Derived fields follow the others, unless they are overridden themselves.
    execute format(
        'update %1$s.rows as r set (%2$s) = (select %3$s from jsonb_populate_record(r.*, patches.patch) as patched)
        from %1$s.patches where patches._key = r._key', v_work, v_set, v_from
    );
    if v_derived is not null then
        execute format(
            'update %1$s.rows as settled set %2$s where settled._key in (select patches._key from %1$s.patches)', v_work, v_derived
        );
        execute format(
            'update %1$s.rows as r set (%2$s) = (select %3$s from jsonb_populate_record(r.*, patches.patch) as patched)
            from %1$s.patches where patches._key = r._key', v_work, v_set, v_from
        );
    end if;
end
$$;
comment on function syncline.apply_overrides(syncline.builds, syncline.builds, jsonb) is
'Puts the overrides in force into `rows`, those of rows that only stay included.';
