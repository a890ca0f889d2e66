-- Several sources for one entity: what the macro merged() leaves to the build.

create or replace function syncline.merge_mark(p_sql text) returns jsonb
language sql immutable
as $$ select (regexp_match(p_sql, '/\* syncline:merge (.*?) \*/'))[1]::jsonb $$;
comment on function syncline.merge_mark(text) is
'What merged() says in the compiled SQL: sources, the truths and references of each field, derived fields; null for other models.';

create or replace function syncline.differ(p_one anyelement, p_other anyelement) returns boolean
language sql immutable parallel safe
as $$ select p_one <> p_other $$;
comment on function syncline.differ(anyelement, anyelement) is
'Whether two values of one type disagree; null where one is missing. Two types are an error of the statement.';

create or replace function syncline.explains(p_key text) returns boolean
language sql immutable parallel safe
as $$ select false $$;
comment on function syncline.explains(text) is
'Stands in the compiled SQL of merged() for the keys of which all that the sources say is wanted.';

create or replace function syncline.hidden_columns(p_merge jsonb) returns text[]
language sql immutable
as $$
    select
        case
            when p_merge is null then '{}'
            else array['_conflicts'] || array(
                select '_new_' || field.key
                from jsonb_each(p_merge -> 'fields') as field
                where (field.value ->> 'keeps')::boolean
            )
        end
$$;
comment on function syncline.hidden_columns(jsonb) is
'The columns of a merged model that the build uses up: they are not in the entity.';

create or replace function syncline.check_merge(p_entity text, p_merge jsonb, p_columns jsonb) returns void
language plpgsql
as $$
declare
    v_wrong text;
begin
    select string_agg(name, ', ' order by name) into v_wrong
    from unnest(syncline.hidden_columns(p_merge)) as name
    where not p_columns @> jsonb_build_array(jsonb_build_object('name', name));
    if v_wrong is not null then
        raise exception using
            errcode = 'SY213',
            message = format('%s does not pass on %s of merged()', p_entity, v_wrong),
            hint = 'Select merged.* where the model adds columns of its own: the build settles references and conflicts by them.';
    end if;
end
$$;
comment on function syncline.check_merge(text, jsonb, jsonb) is
'Raises SY213 where a model selects from merged() and leaves out what the build needs.';

create or replace function syncline.check_merged_types(p_entity text, p_sql text, p_merge jsonb) returns void
language plpgsql
as $$
declare
    v_wrong text;
begin
    select
        format(
            '%s is %s', field.key,
            string_agg(format('%s in %s', said.type, said.source), ' and ' order by said.source)
        ) into v_wrong
    from jsonb_each(p_merge -> 'fields') as field
    inner join syncline.merged_mapping(p_sql) as said on field.key = said.column_name
    where field.value -> 'truths' ? said.source or field.value -> 'references' ? said.source
    group by field.key
    having count(distinct split_part(said.type, ' as ', 1)) > 1
    order by field.key
    limit 1;
    if v_wrong is not null then
        raise exception using
            errcode = 'SY212',
            message = format('the sources of %s have different types for a field: %s', p_entity, v_wrong),
            hint = 'Give the field one type in all staging models.';
    end if;
end
$$;
comment on function syncline.check_merged_types(text, text, jsonb) is
'Raises SY212 where two staging models type one field differently.';

create or replace function syncline.compiled_parts(p_sql text) returns table (part text, body text)
-- Not plain SQL: taken for the thousand rows of the function within, a recursion over it would reserve memory for millions.
language plpgsql immutable rows 10
as $$
begin
    -- dbt puts ephemeral models in front, each as `__dbt__cte__<name> as (`.
    return query
    select coalesce((regexp_match(piece, '^(__dbt__cte__\w+)"? as \('))[1], ''), piece
    from regexp_split_to_table(p_sql, '(?=__dbt__cte__\w+"? as \()') as piece;
end
$$;
comment on function syncline.compiled_parts(text) is
'The ephemeral models in compiled SQL by the names that dbt gives them; the last holds the model itself, too.';

create or replace function syncline.merged_parts(p_sql text) returns table (source text, body text)
language sql immutable
as $$
    with recursive parts as (
        select compiled.part, split_part(compiled.body, '/* syncline:merge', 1) as body
        from syncline.compiled_parts(p_sql) as compiled
    ),
    reading (source, part) as (
        select named.key, trim(both '"' from named.value)
        from jsonb_each_text(syncline.merge_mark(p_sql) -> 'sources') as named
        union
        -- A staging model may read another ephemeral model.
        select reading.source, used[1]
        from reading
        inner join parts on reading.part = parts.part
        cross join lateral regexp_matches(parts.body, '(?:from|join)\s+"?(__dbt__cte__\w+)', 'gi') as used
    )

    select reading.source, parts.body
    from reading
    inner join parts on reading.part = parts.part
$$;
comment on function syncline.merged_parts(text) is
'The compiled SQL that each source of a merged model consists of: its staging model, and what ephemeral models that reads.';

create or replace function syncline.merged_mapping(p_sql text)
returns table (source text, column_name text, path text, type text, is_required boolean)
language sql immutable
as $$
    select parts.source, mapped.column_name, mapped.path, mapped.type, mapped.is_required
    from syncline.merged_parts(p_sql) as parts
    cross join lateral syncline.mapping(parts.body) as mapped
$$;
comment on function syncline.merged_mapping(text) is
'Which field of each source of a merged model comes from which JSON path.';

create or replace function syncline.settled_sql(
    p_sql text, p_columns jsonb, p_merge jsonb, p_active text, p_is_forced boolean
) returns text
language plpgsql stable
as $$
declare
    v_settled text;
    v_all text;
begin
    if p_merge is null then
        return p_sql;
    end if;
    -- Whether a row is new or not, the same records over what they gave before give the same again.
    select
        string_agg(
            format(case
                when not coalesce((p_merge #>> array['fields', c.name, 'keeps'])::boolean, false) then 'merged.%1$I'
                when p_active is null then 'coalesce(merged.%1$I, merged.%2$I) as %1$I'
                when p_is_forced then 'coalesce(merged.%1$I, merged.%2$I, active.%1$I) as %1$I'
                else 'coalesce(merged.%1$I, case when active._key is null then merged.%2$I else active.%1$I end) as %1$I'
            end, c.name, '_new_' || c.name), ', ' order by c.place
        ) filter (where not p_merge -> 'derived' ? c.name),
        string_agg(
            case when p_merge -> 'derived' ? c.name then format('(%s) as %I', p_merge -> 'derived' ->> c.name, c.name)
            else format('settled.%I', c.name) end, ', ' order by c.place
        )
    into v_settled, v_all
    from rows from (jsonb_to_recordset(p_columns) as (name text)) with ordinality as c (name, place);
    return format(
        'select %s, settled._conflicts from (select %s, merged._conflicts from (%s) as merged %s) as settled',
        v_all, v_settled, p_sql, case when p_active is not null then format('left join %s as active on active._key = merged._key', p_active) end
    );
end
$$;
comment on function syncline.settled_sql(text, jsonb, jsonb, text, boolean) is
'The SQL of a merged model with references settled against the active version and derived fields made of what came out.';

create or replace function syncline.reject_repeats(p_build syncline.builds, p_spec jsonb, p_merge jsonb) returns void
language plpgsql
as $$
declare
    v_count bigint;
begin
    if p_merge is null then
        return;
    end if;
    execute format('delete from %I.rows where _key is null', 'syncline_' || p_build.entity);
    get diagnostics v_count = row_count;
    if v_count > 0 then
        perform syncline.add_row_error(
            null, null, '_key', null, null, 'a record has nothing to be matched by: its _key is null', 'error'
        );
    end if;
    perform syncline.reject_losers(
        p_build, '["_key"]',
        format(
            'select _key as origin, jsonb_build_array(_key) as identity from %I.rows group by _key having count(*) > 1',
            'syncline_' || p_build.entity
        ),
        p_spec -> 'streams', 'a source has this %s several times'
    );
end
$$;
comment on function syncline.reject_repeats(syncline.builds, jsonb, jsonb) is
'Of a merged model: rejects keys that a staging model gives several rows for, and records without a key.';
