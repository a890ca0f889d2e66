-- From changed records to the keys whose rows come out otherwise. In the build's workspace `changed` holds the keys to
-- look at, `rows` what the model makes of them, `base` is the active version (A) in the model's columns, `kept` are the
-- keys that stay as they are in A (or, carried, only change by overrides), and `differing` the keys whose rows come out otherwise than in A.

create or replace function syncline.find_changed(
    p_entity text, p_base syncline.builds, p_loads jsonb, p_streams jsonb, p_is_all boolean
) returns void
language plpgsql
as $$
declare
    v_changed text := format('%I.changed', 'syncline_' || p_entity);
    v_stream record;
    v_since bigint;
    v_until bigint;
begin
    execute format('create unlogged table %s (_key text not null)', v_changed);
    if p_is_all then
        return;
    end if;
    for v_stream in select * from syncline.streams_read(p_entity, p_streams) loop
        v_since := p_base.loads ->> v_stream.label;
        v_until := p_loads ->> v_stream.label;
        -- After a rollback or a restart of a run the pinned load may be the older one.
        execute format(
            'insert into %1$s
            select found._key
            from (
                select _key from %2$s where _first_load > %3$s and _first_load <= %4$s
                union
                select _key from %2$s where _gone_load > %3$s and _gone_load <= %4$s
            ) as found
            where not exists (select 1 from %1$s as already where already._key = found._key)',
            v_changed, v_stream.records,
            least(v_since, v_until), greatest(v_since, v_until)
        );
    end loop;
    execute format(
        'insert into %1$s select _key from syncline.rejected_keys as old
        where build_id = $1 and not exists (select 1 from %1$s as already where already._key = old._key)', v_changed
    ) using p_base.build_id;
    execute format(
        'insert into %1$s select distinct _key from syncline.touches as touched
        where entity = $1 and touch_id > $2 and not exists (select 1 from %1$s as already where already._key = touched._key)', v_changed
    ) using p_entity, p_base.last_touch;
    execute format('analyze %s', v_changed);
end
$$;
comment on function syncline.find_changed(text, syncline.builds, jsonb, jsonb, boolean) is
'Fills `changed`: keys with a revision opened or closed since the active version''s loads, those touched since, and those it rejected. Left empty where all keys are wanted.';

create or replace function syncline.find_differing(
    p_build syncline.builds,
    p_base syncline.builds,
    p_schema text,
    p_sql text,
    p_spec jsonb,
    p_merge jsonb,
    p_is_all boolean,
    p_is_forced boolean
) returns void
language plpgsql
as $$
declare
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_active text := format('%I.%I', p_schema, p_build.entity || '_v' || p_base.version);
    v_hash text;
    v_model text;
    v_count bigint;
    v_has_overrides boolean := syncline.has_overrides(p_build.entity, p_base.last_touch);
begin
    select string_agg(quote_ident(name), ', ' order by name) into v_hash
    from jsonb_to_recordset(p_build.columns) as c (name text);
    v_hash := format('md5(record_send(row(%s)))', v_hash);
    execute format(
        'create view %s.base as select %s from %s as active', v_work,
        syncline.carried_columns(p_build.columns, p_base.columns), v_active
    );
    if p_merge is not null or v_has_overrides or p_spec ->> 'on_missing' = 'mark' then
        perform syncline.open_plain(p_build, p_base, p_is_all);
    end if;
    v_model := syncline.build_sql(p_build, p_sql, p_merge, v_work || '.plain', p_is_forced);
    perform syncline.write_typed(p_build.entity, format('create unlogged table %s.rows as %s', v_work, v_model), p_is_all);
    perform syncline.open_kept(p_build.entity);
    execute format(
        'insert into %s.kept select distinct _key, true from syncline.row_errors
        where build_id = $1 and severity = ''error'' and _key is not null',
        v_work
    ) using p_build.build_id;
    get diagnostics v_count = row_count;
    if v_count > 0 then
        execute format('delete from %1$s.rows as r using %1$s.kept where r._key = kept._key', v_work);
    end if;
    perform syncline.reject_repeats(p_build, p_spec, p_merge);
    perform syncline.stash_conflicts(p_build, p_merge);
    if p_spec ->> 'on_missing' = 'keep' then
        execute format(
            'insert into %1$s.kept
            select distinct base._key, false from %1$s.base
            where %2$s not exists (select 1 from (%3$s) as here where here._key = base._key)
            on conflict do nothing',
            v_work,
            case when p_is_all then '' else format('exists (select 1 from %s.changed where changed._key = base._key) and', v_work) end,
            syncline.keys_that_are_here(p_build, p_spec)
        );
    elsif p_spec ->> 'on_missing' = 'mark' then
        perform syncline.mark_missing(p_build, p_base, p_spec);
    end if;
    perform syncline.tell_lost_values(p_build, p_base, v_active);
    if v_has_overrides then
        perform syncline.apply_overrides(p_build, p_base, p_merge);
    end if;
    execute format('analyze %1$s.rows, %1$s.kept', v_work);
    execute format(
        'insert into %1$s.differing
        select distinct _key
        from (
            select _key
            from (
                select _key, %2$s as row_hash, 1 as side from %1$s.rows
                union all
                select _key, %2$s, -1 from %1$s.base
                where %3$s not exists (select 1 from %1$s.kept where kept._key = base._key and not kept.is_carried)
            ) as both_sides
            group by _key, row_hash
            having sum(side) <> 0
        ) as uneven',
        v_work, v_hash,
        case when p_is_all then '' else format('_key in (select changed._key from %s.changed) and', v_work) end
    );
    execute format('analyze %s.differing', v_work);
    perform syncline.reject_collisions(p_build, p_spec -> 'unique_key', p_spec -> 'streams');
end
$$;
comment on function syncline.find_differing(syncline.builds, syncline.builds, text, text, jsonb, jsonb, boolean, boolean) is
'Fills `rows`, `kept` and `differing`: the keys whose rows come out otherwise than in the active version.';

create or replace function syncline.build_sql(
    p_build syncline.builds, p_sql text, p_merge jsonb, p_active text, p_is_forced boolean
) returns text
language plpgsql stable
as $$
declare
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_columns jsonb := jsonb_path_query_array(p_build.columns, '$[*] ? (@.name != "_missing_since")');
    v_sql text := p_sql;
begin
    if p_merge is not null and exists (
        select 1 from syncline.overrides_in_force(p_build.entity, p_build.last_touch) as o where o.source is not null
    ) then
        -- Where people trust one source, what it says is wanted though nobody disagrees.
        v_sql := replace(
            v_sql, 'syncline.explains(',
            format(
                'exists (select 1 from syncline.overrides_in_force(%L, %s) as trusted where trusted.source is not null and trusted._key = ',
                p_build.entity, p_build.last_touch
            )
        );
    end if;
    v_sql := syncline.settled_sql(v_sql, v_columns, p_merge, p_active, p_is_forced);
    if p_build.columns @> '[{"name": "_missing_since"}]' then
        v_sql := format('select present.*, null::timestamptz as _missing_since from (%s) as present', v_sql);
    end if;
    return v_sql;
end
$$;
comment on function syncline.build_sql(syncline.builds, text, jsonb, text, boolean) is
'The statement that gives the rows of an entity: the model''s own, what merged() leaves to the build settled against the active version, and the mark of missing records.';

create or replace function syncline.open_kept(p_entity text) returns void
language plpgsql
as $$
begin
    execute format(
        'create unlogged table %1$I.kept (
            _key text primary key, is_rejected boolean not null, is_carried boolean not null default false
        );
        create unlogged table %1$I.differing (_key text not null)',
        'syncline_' || p_entity
    );
end
$$;
comment on function syncline.open_kept(text) is 'Makes `kept` and `differing`, empty.';

create or replace function syncline.mark_missing(
    p_build syncline.builds, p_base syncline.builds, p_spec jsonb
) returns void
language plpgsql
as $$
declare
    v_list text;
    v_marked text;
begin
    select
        string_agg(quote_ident(c.name), ', ' order by c.place),
        string_agg(
            case when c.name = '_missing_since' then 'coalesce(plain._missing_since, $1)' else format('plain.%I', c.name) end,
            ', ' order by c.place
        )
    into v_list, v_marked
    from rows from (jsonb_to_recordset(p_build.columns) as (name text)) with ordinality as c (name, place);
    -- The time is that of the loads, so that building twice gives the same.
    execute format(
        'insert into %1$I.rows (%2$s)
        select %3$s from %1$I.plain
        where not exists (select 1 from %1$I.kept where kept._key = plain._key)
            and not exists (select 1 from (%4$s) as here where here._key = plain._key)',
        'syncline_' || p_build.entity, v_list, v_marked, syncline.keys_that_are_here(p_build, p_spec)
    ) using coalesce(
        (select max(l.finished_at) from syncline.loads as l inner join jsonb_each_text(p_build.loads) as used on l.load_id = used.value::bigint),
        p_base.created_at
    );
end
$$;
comment on function syncline.mark_missing(syncline.builds, syncline.builds, jsonb) is
'Lets rows without a live record stay, with the time since when it is missing.';

create or replace function syncline.write_typed(p_entity text, p_statement text, p_is_all boolean) returns bigint
language plpgsql
as $$
declare
    v_count bigint;
    v_is_parallel text := current_setting('max_parallel_workers_per_gather');
    v_costs text[] := array[current_setting('parallel_setup_cost'), current_setting('parallel_tuple_cost')];
begin
    -- A row error is a row, and a parallel plan cannot write one. So the first try takes every value to fit, looks at
    -- its form alone, and stops at the first that does not fit; an entity that has errors is not tried so.
    if p_is_all and not exists (select 1 from syncline.row_errors where entity = p_entity and closed_at is null) then
        begin
            perform
                set_config('syncline.rejects', 'raise', true),
                set_config('parallel_setup_cost', '0', true),
                set_config('parallel_tuple_cost', '0', true);
            execute replace(p_statement, 'syncline.is_valid(', 'syncline.has_form(');
            get diagnostics v_count = row_count;
            perform
                set_config('syncline.rejects', 'record', true),
                set_config('parallel_setup_cost', v_costs[1], true),
                set_config('parallel_tuple_cost', v_costs[2], true);
            return v_count;
        exception when sqlstate 'SY000' or data_exception or integrity_constraint_violation or raise_exception then
            null;
        end;
    end if;
    perform set_config('syncline.rejects', 'record', true), set_config('max_parallel_workers_per_gather', '0', true);
    execute p_statement;
    get diagnostics v_count = row_count;
    perform set_config('max_parallel_workers_per_gather', v_is_parallel, true);
    return v_count;
end
$$;
comment on function syncline.write_typed(text, text, boolean) is
'Runs a statement that types records, in parallel where no value is bad; returns the number of rows.';

create or replace function syncline.carried_columns(
    p_columns jsonb, p_base_columns jsonb, p_tells boolean default false
) returns text
language sql stable
as $$
    select string_agg(
        case
            when old.name is null then format('null::%s as %I', new.type, new.name)
            when old.type = new.type then format('active.%I', new.name)
            else format(
                case
                    when p_tells then
                        'case when active.%1$I is null or syncline.is_castable(active.%1$I::text, %2$L) then active.%1$I::text::%2$s
                        else syncline.reject(active._key, null, %1$L, %2$L, active.%1$I::text, false)::%2$s end as %1$I'
                    else 'case when syncline.is_castable(active.%1$I::text, %2$L) then active.%1$I::text::%2$s end as %1$I'
                end,
                new.name, split_part(new.type, ' collate ', 1)
            )
        end, ', ' order by new.place
    )
    from rows from (jsonb_to_recordset(p_columns) as (name text, type text)) with ordinality as new (name, type, place)
    left join jsonb_to_recordset(p_base_columns) as old (name text, type text) on new.name = old.name
$$;
comment on function syncline.carried_columns(jsonb, jsonb, boolean) is
'The select list that carries rows of the active version into the model''s columns, by name; a value that does not fit a retyped column is null, with a row error where that is wanted.';

create or replace function syncline.tell_lost_values(p_build syncline.builds, p_base syncline.builds, p_active text) returns void
language plpgsql
as $$
declare
    v_column record;
begin
    for v_column in
        select new.name, split_part(new.type, ' collate ', 1) as type
        from jsonb_to_recordset(p_build.columns) as new (name text, type text)
        inner join jsonb_to_recordset(p_base.columns) as old (name text, type text) on new.name = old.name and new.type <> old.type
    loop
        execute format(
            'select syncline.add_row_error(
                active._key, null, %2$L, %3$L, active.%2$I::text, ''the value from before does not fit the column any more'', ''warning''
            )
            from %1$s as active inner join %4$I.kept on kept._key = active._key
            where not syncline.is_castable(active.%2$I::text, %3$L)',
            p_active, v_column.name, v_column.type, 'syncline_' || p_build.entity
        );
    end loop;
end
$$;
comment on function syncline.tell_lost_values(syncline.builds, syncline.builds, text) is
'Records the values of rows that stay as they are which a retyped column cannot take: they are null.';

create or replace function syncline.keys_that_are_here(p_build syncline.builds, p_spec jsonb) returns text
language sql stable
as $$
    select case
        when p_spec ->> 'delta' = 'full' then format('select _key from %I.rows', 'syncline_' || p_build.entity)
        else string_agg(format('select _key from %s', s.substitute), ' union all ')
    end
    from syncline.streams_read(p_build.entity, p_spec -> 'streams') as s
$$;
comment on function syncline.keys_that_are_here(syncline.builds, jsonb) is
'A query of the keys that have a live record; of a model that is compared whole, those that have a row.';

create or replace function syncline.reject_collisions(
    p_build syncline.builds, p_unique_key jsonb, p_streams jsonb
) returns void
language plpgsql
as $$
declare
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_losers text;
    v_count bigint;
begin
    if jsonb_array_length(p_unique_key) = 0 then
        return;
    end if;
    -- A key that gives one unique key twice loses whatever the others do.
    perform syncline.reject_losers(p_build, p_unique_key, format(
        'select distinct on (r._key) r._key as origin, jsonb_build_array(%1$s) as identity
        from %2$s.rows as r inner join %2$s.differing on r._key = differing._key
        where %3$s
        group by r._key, %1$s
        having count(*) > 1',
        syncline.column_list(p_unique_key, 'r.%I'), v_work,
        syncline.column_list(p_unique_key, 'r.%I is not null', ' and ')
    ), p_streams, 'this record gives the same %s twice');
    -- Only a unique key that its record did not have in the active version can be in another's way.
    execute format(
        'create unlogged table %1$s.claimed as
        select distinct %2$s
        from %1$s.rows as r inner join %1$s.differing on r._key = differing._key
        where %3$s and not exists (select 1 from %1$s.base where base._key = r._key and %4$s)',
        v_work, syncline.column_list(p_unique_key, 'r.%I'),
        syncline.column_list(p_unique_key, 'r.%I is not null', ' and '),
        syncline.column_list(p_unique_key, 'base.%1$I = r.%1$I', ' and ')
    );
    get diagnostics v_count = row_count;
    execute format('analyze %s.claimed', v_work);
    -- A loser keeps its rows in the active version, which can be in another's way: until nothing collides.
    v_losers := format(
        'with claims as (
            select r._key as origin, jsonb_build_array(%1$s) as identity, true as is_new, exists (
                select 1 from %2$s.base where base._key = r._key and %3$s
            ) as is_held
            from %2$s.claimed inner join %2$s.rows as r on %4$s
            where exists (select 1 from %2$s.differing where differing._key = r._key)
            union all
            select base._key, jsonb_build_array(%1$s), false, true
            from %2$s.claimed inner join %2$s.base on %5$s
            where not exists (select 1 from %2$s.differing where differing._key = base._key)
        ),
        ranked as (
            select *, row_number() over (partition by identity order by is_held desc, origin collate "C") as place
            from claims
        )
        select distinct on (origin) origin, identity from ranked where place > 1 and is_new',
        syncline.column_list(p_unique_key, 'claimed.%I'), v_work,
        syncline.column_list(p_unique_key, 'base.%1$I = r.%1$I', ' and '),
        syncline.column_list(p_unique_key, 'r.%1$I = claimed.%1$I', ' and '),
        syncline.column_list(p_unique_key, 'base.%1$I = claimed.%1$I', ' and ')
    );
    while v_count > 0 loop
        v_count := syncline.reject_losers(p_build, p_unique_key, v_losers, p_streams, 'another record has this %s');
    end loop;
end
$$;
comment on function syncline.reject_collisions(syncline.builds, jsonb, jsonb) is
'Where two origin keys give one unique key, the row already in the active version wins, then the lowest _key; the losing key is rejected whole and keeps its rows there.';

create or replace function syncline.reject_losers(
    p_build syncline.builds, p_unique_key jsonb, p_losers text, p_streams jsonb, p_message text
) returns bigint
language plpgsql
as $$
declare
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_records text;
    v_count bigint;
begin
    select string_agg(format('select _key, _ordinal from %s', s.substitute), ' union all ') into v_records
    from syncline.streams_read(p_build.entity, p_streams) as s;
    execute format(
        'with losers as (%1$s),
        unwritten as (delete from %2$s.differing using losers where differing._key = losers.origin),
        dropped as (delete from %2$s.rows as r using losers where r._key = losers.origin),
        kept as (
            insert into %2$s.kept select origin, true from losers
            on conflict (_key) do update set is_rejected = true, is_carried = false
        )
        select syncline.add_row_error(
            origin, (select min(record._ordinal) from (%5$s) as record where record._key = origin),
            %3$L, null, identity::text, %4$L, ''error''
        )
        from losers',
        p_losers, v_work, syncline.column_list(p_unique_key, '%s'),
        format(p_message, syncline.column_list(p_unique_key, '%s')),
        coalesce(v_records, 'select null::text as _key, null::bigint as _ordinal')
    );
    get diagnostics v_count = row_count;
    return v_count;
end
$$;
comment on function syncline.reject_losers(syncline.builds, jsonb, text, jsonb, text) is
'Rejects the keys that the query gives with their unique key, with a message that has a place for its columns; returns their number.';

create or replace function syncline.column_list(p_names jsonb, p_format text, p_separator text default ', ') returns text
language sql stable
as $$
    select string_agg(format(p_format, name), p_separator order by place)
    from jsonb_array_elements_text(p_names) with ordinality as n (name, place)
$$;
comment on function syncline.column_list(jsonb, text, text) is 'Column names put into a format, joined.';

create or replace function syncline.count_changes(p_build syncline.builds, p_base syncline.builds, p_unique_key jsonb)
returns syncline.builds
language plpgsql
as $$
declare
    v_build syncline.builds := p_build;
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_identity text := coalesce(syncline.column_list(p_unique_key, '%I'), '_key');
    v_content text;
begin
    select format('md5(record_send(row(%s)))', string_agg(quote_ident(name), ', ' order by name)) into v_content
    from jsonb_to_recordset(p_build.columns) as c (name text);
    -- Several rows may share an identity: of those the equal ones are unchanged, and the others pair up as updates.
    execute format(
        'select
            coalesce(sum(greatest(new - old, 0)), 0),
            coalesce(sum(least(new, old) - equal), 0),
            coalesce(sum(greatest(old - new, 0)), 0)
        from (
            select sum(new) as new, sum(old) as old, sum(least(new, old)) as equal
            from (
                select
                    %1$s, content, count(*) filter (where is_new) as new, count(*) filter (where not is_new) as old
                from (
                    select %1$s, %2$s as content, true as is_new from %3$s.rows
                    where _key in (select differing._key from %3$s.differing)
                    union all
                    select %1$s, %2$s, false from %3$s.base
                    where _key in (select differing._key from %3$s.differing)
                ) as both_sides
                group by %1$s, content
            ) as contents
            group by %1$s
        ) as identities',
        v_identity, v_content, v_work
    ) into v_build.rows_inserted, v_build.rows_updated, v_build.rows_deleted;
    execute format('select count(*) from %s.kept where is_rejected', v_work) into v_build.keys_rejected;
    v_build.rows_total := p_base.rows_total + v_build.rows_inserted - v_build.rows_deleted;
    v_build.rows_unchanged := p_base.rows_total - v_build.rows_updated - v_build.rows_deleted;
    return v_build;
end
$$;
comment on function syncline.count_changes(syncline.builds, syncline.builds, jsonb) is
'The build with its counts of rows inserted, updated, deleted and unchanged, matched by unique key.';

create or replace function syncline.guard_mass_delete(
    p_build syncline.builds, p_base syncline.builds, p_spec jsonb, p_is_allowed boolean
) returns void
language plpgsql
as $$
declare
    v_work text := format('%I', 'syncline_' || p_build.entity);
    v_gone bigint;
    v_keys bigint;
begin
    if p_is_allowed or p_build.rows_deleted <= 10 then
        return;
    end if;
    execute format(
        'select count(distinct base._key) from %1$s.base inner join %1$s.differing on base._key = differing._key
        where not exists (select 1 from %1$s.rows as r where r._key = base._key)', v_work
    ) into v_gone;
    if v_gone <= 10 then
        return;
    end if;
    execute format('select count(distinct _key) from %s.base', v_work) into v_keys;
    if v_gone > v_keys * (p_spec ->> 'max_delete_ratio')::numeric then
        raise exception using
            errcode = 'SY301',
            message = format('%s would lose %s of its %s keys', p_build.entity, v_gone, v_keys),
            hint = format(
                'That is more than max_delete_ratio (%s) allows; nothing was changed. If they are gone indeed, run again with --allow-mass-delete.',
                p_spec ->> 'max_delete_ratio'
            );
    end if;
end
$$;
comment on function syncline.guard_mass_delete(syncline.builds, syncline.builds, jsonb, boolean) is
'Raises SY301 where a build would delete more keys than max_delete_ratio allows, and more than 10.';
