-- What a model's SQL may be, judged by Postgres' own rules and plans.

create or replace function syncline.check_model(p_spec jsonb, p_sql text, p_merge jsonb) returns jsonb
language plpgsql
as $$
declare
    v_entity text := p_spec ->> 'entity';
    v_view text := format('%I.model', 'syncline_' || v_entity);
    v_columns jsonb;
    v_function text;
    v_missing text;
begin
    perform syncline.open_stubs(v_entity, p_spec -> 'streams');
    if p_merge is not null then
        perform syncline.check_merged_types(v_entity, p_sql, p_merge);
    end if;
    begin
        execute format('create view %s as %s', v_view, p_sql);
    exception when undefined_column or undefined_function or datatype_mismatch then
        if p_merge is null then
            raise;
        end if;
        raise exception using
            errcode = 'SY212',
            message = format('%s: %s', v_entity, sqlerrm),
            hint = case
                when sqlerrm ~ '^column "' then 'No field of that name is in `fields`: the SQL of a derived field names fields alone.'
                when sqlerrm ~ '^column .* does not exist$' then
                    'Its staging model has no such field: write the sources that have it in the field''s `priority`, or add it to the staging model.'
                else 'Each source in a field''s priority must have the field in its staging model, of the same type, which has an equality (jsonb, not json).'
            end;
    end;
    v_columns := syncline.table_columns(v_view::regclass);
    if p_merge is not null then
        perform syncline.check_merge(v_entity, p_merge, v_columns);
        v_columns := jsonb_path_query_array(
            v_columns, '$[*] ? (!(@.name == $hidden[*]))', jsonb_build_object('hidden', syncline.hidden_columns(p_merge))
        );
    end if;
    if not jsonb_path_exists(v_columns, '$[*] ? (@.name == "_key" && @.type starts with "text")') then
        raise exception using
            errcode = 'SY207',
            message = format('%s has no column _key of type text', v_entity),
            hint = 'Select _key from the source, unchanged: it says which record a row came from.';
    end if;
    select string_agg(name, ', ') into v_missing
    from jsonb_array_elements_text(p_spec -> 'unique_key') as name
    where not v_columns @> jsonb_build_array(jsonb_build_object('name', name));
    if v_missing is not null then
        raise exception using
            errcode = 'SY207',
            message = format('%s has no column %s, which its unique_key names', v_entity, v_missing),
            hint = 'Name columns of the model in unique_key.';
    end if;
    select proc.oid::regprocedure::text into v_function
    from pg_catalog.pg_rewrite as rule
    cross join lateral regexp_matches(rule.ev_action::text, ':(?:funcid|opfuncid|winfnoid|aggfnoid) (\d+)', 'g') as used
    inner join pg_catalog.pg_proc as proc on used[1]::oid = proc.oid
    where rule.ev_class = v_view::regclass and proc.provolatile = 'v'
    limit 1;
    if v_function is not null then
        raise exception using
            errcode = 'SY208',
            message = format('%s uses %s, which gives another value each time', v_entity, v_function),
            hint = 'A build must give the same rows for the same records: take the value from the record, or use a column default downstream.';
    end if;
    if p_spec ->> 'delta' <> 'full' then
        perform syncline.check_row_local(v_entity, p_sql, p_merge is not null);
    end if;
    execute format('drop view %s', v_view);
    perform syncline.close_stubs(v_entity, p_spec -> 'streams');
    if (p_spec ->> 'history')::boolean then
        perform syncline.check_history(p_spec ->> 'schema', v_entity, v_columns);
    end if;
    if p_spec ->> 'on_missing' = 'mark' then
        v_columns := v_columns || '[{"name": "_missing_since", "type": "timestamp with time zone"}]'::jsonb;
    end if;
    perform syncline.check_external_ref(p_spec, v_columns);
    return v_columns;
end
$$;
comment on function syncline.check_model(jsonb, text, jsonb) is
'The columns of the entity that a model''s SQL makes; raises SY207 to SY215 where it lacks a column, is volatile, is not row-local, or merges what cannot be merged.';

create or replace function syncline.check_row_local(p_entity text, p_sql text, p_is_merged boolean) returns void
language plpgsql
as $$
declare
    v_plan jsonb;
    v_reason text;
begin
    execute 'explain (verbose, format json) ' || p_sql into v_plan;
    v_plan := v_plan -> 0 -> 'Plan';
    select format('it reads %s.%s beside its stream', scan ->> 'Schema', scan ->> 'Relation Name') into v_reason
    from jsonb_path_query(v_plan, 'strict $.** ? (exists (@."Relation Name"))') as scan
    where scan ->> 'Schema' !~ ('^syncline[0-9]+_' || p_entity || '$')
    limit 1;
    v_reason := coalesce(v_reason, syncline.reason_not_row_local(v_plan, p_is_merged));
    if v_reason is null and not p_is_merged and syncline.count_scans(v_plan) <> 1 then
        v_reason := 'it does not read exactly one stream, once';
    end if;
    if v_reason is not null then
        raise exception using
            errcode = 'SY209',
            message = format('%s cannot be built by changed keys: %s', p_entity, v_reason),
            hint = 'Say delta=''full'' in its config to compare its whole result each time, or move that part into a model downstream.';
    end if;
end
$$;
comment on function syncline.check_row_local(text, text, boolean) is
'Raises SY209 where a row of the model is not made from one record alone, by Postgres'' own plan.';

create or replace function syncline.count_scans(p_plan jsonb) returns integer
language sql stable
as $$
    select (p_plan ? 'Relation Name')::integer + coalesce(sum(syncline.count_scans(child)), 0)::integer
    from jsonb_array_elements(p_plan -> 'Plans') as child
$$;
comment on function syncline.count_scans(jsonb) is 'How many scans of tables a plan holds.';

create or replace function syncline.reason_not_row_local(p_plan jsonb, p_is_merged boolean) returns text
language plpgsql stable
as $$
declare
    v_node text := p_plan ->> 'Node Type';
    v_child jsonb;
    v_reason text;
    v_left integer;
    v_right integer;
begin
    -- What reads no table may do as it likes: it works within one record.
    if syncline.count_scans(p_plan) = 0 then
        return null;
    end if;
    if v_node in ('Nested Loop', 'Hash Join', 'Merge Join') then
        v_left := syncline.count_scans(jsonb_path_query_first(p_plan, '$.Plans[*] ? (@."Parent Relationship" == "Outer")'));
        v_right := syncline.count_scans(jsonb_path_query_first(p_plan, '$.Plans[*] ? (@."Parent Relationship" == "Inner")'));
        if v_left > 0 and v_right > 0 then
            if not p_is_merged then
                return 'it joins';
            elsif not syncline.joins_by_key(p_plan) then
                return 'its staging models are joined by something else than the key of their streams';
            end if;
        elsif not (p_plan ->> 'Join Type' = 'Inner' or (p_plan ->> 'Join Type' in ('Left', 'Semi', 'Anti') and v_left > 0)) then
            return 'it joins';
        end if;
    elsif v_node not in (
        'Seq Scan', 'Index Scan', 'Index Only Scan', 'Bitmap Heap Scan', 'Subquery Scan', 'CTE Scan', 'Result',
        'ProjectSet', 'Materialize', 'Memoize', 'Hash', 'Sort', 'Incremental Sort'
    ) then
        return format('it needs %s', case v_node
            when 'Aggregate' then 'an aggregate or distinct'
            when 'Group' then 'a group by'
            when 'Unique' then 'a distinct'
            when 'WindowAgg' then 'a window function'
            when 'Limit' then 'a limit'
            when 'Append' then 'a union'
            when 'SetOp' then 'a set operation'
            else 'a step of kind ' || v_node
        end);
    end if;
    for v_child in select * from jsonb_array_elements(p_plan -> 'Plans') loop
        if v_child ->> 'Parent Relationship' = 'SubPlan' and syncline.count_scans(v_child) > 0 then
            return 'it reads a stream in a subquery';
        end if;
        v_reason := syncline.reason_not_row_local(v_child, p_is_merged);
        if v_reason is not null then
            return v_reason;
        end if;
    end loop;
    return null;
end
$$;
comment on function syncline.reason_not_row_local(jsonb, boolean) is
'Why a plan does more than read records one by one and unnest them, or, for merged(), join them by _key; null where it does not.';

create or replace function syncline.joins_by_key(p_plan jsonb) returns boolean
language sql immutable
as $$
    select
        not p_plan ? 'Join Filter'
        and regexp_replace(
            coalesce(p_plan ->> 'Hash Cond', p_plan ->> 'Merge Cond', 'none'),
            '("[^"]+"|\w+)\._key|COALESCE|[(),= ]', '', 'g'
        ) = ''
$$;
comment on function syncline.joins_by_key(jsonb) is 'Whether a step of a plan joins by the keys of streams alone.';

create or replace function syncline.mapping(p_sql text)
returns table (column_name text, path text, type text, is_required boolean)
language sql immutable
as $$
    select found[2], marker ->> 'path', (marker ->> 'type') || coalesce(' as ' || (marker ->> 'format'), ''), (marker ->> 'required')::boolean
    from
        regexp_matches(p_sql, '/\* syncline:typed (\{[^}]*\}) \*/\s+(?:as\s+)?"?([A-Za-z_][A-Za-z0-9_]*)"?', 'g') as found,
        lateral (select found[1]::jsonb as marker) as parsed
$$;
comment on function syncline.mapping(text) is
'Which column comes from which JSON path, read from the marks that typed() leaves in the compiled SQL.';
