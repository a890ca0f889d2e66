-- <entity>_history of models that say `history: true`: every row as it was published, from when to when.

create or replace function syncline.has_history(p_entity text) returns boolean
language sql stable
as $$
    select exists (select from syncline.models where entity = p_entity and (spec ->> 'history')::boolean)
$$;
comment on function syncline.has_history(text) is
'Whether the entity ever said `history: true`: only then is a table <entity>_history its own, and not somebody else''s.';

create or replace function syncline.check_history(p_schema text, p_entity text, p_columns jsonb) returns void
language plpgsql stable
as $$
declare
    v_there regclass := to_regclass(format('%I.%I', p_schema, p_entity || '_history'));
begin
    if v_there is not null and not syncline.table_columns(v_there) @> '[{"name": "_valid_from"}, {"name": "_valid_to"}]' then
        raise exception using
            errcode = 'SY214',
            message = format('%s is there already, and is not a history of %s', v_there, p_entity),
            hint = 'Rename it, or give the entity another name: `history: true` makes a table of that name.';
    end if;
    if p_columns @> '[{"name": "_valid_from"}]' or p_columns @> '[{"name": "_valid_to"}]' then
        raise exception using
            errcode = 'SY214',
            message = format('%s has a column of its own named _valid_from or _valid_to', p_entity),
            hint = 'Rename it: `history: true` adds columns of these names.';
    end if;
end
$$;
comment on function syncline.check_history(text, text, jsonb) is 'Raises SY214 where another object has the name of an entity''s history, or a column a name of its columns.';

create or replace function syncline.open_history(p_row syncline.entities, p_version smallint, p_at timestamptz) returns boolean
language plpgsql
as $$
declare
    v_name text := p_row.entity || '_history';
    v_history text := format('%I.%I', p_row.schema_name, v_name);
    v_table regclass := format('%I.%I', p_row.schema_name, p_row.entity || '_v' || p_version);
    v_columns text;
    v_old record;
    v_timeout text := current_setting('lock_timeout');
begin
    if to_regclass(v_history) is null then
        select string_agg(format('%I %s', c.name, c.type), ', ') into v_columns
        from jsonb_to_recordset(syncline.table_columns(v_table)) as c (name text, type text);
        execute format('create table %s (%s, _valid_from timestamptz not null, _valid_to timestamptz)', v_history, v_columns);
        execute format('create index %I on %s (_key)', v_name || '_' || left(md5('_key'), 8), v_history);
        execute format(
            'comment on table %s is %L', v_history,
            'Each row of ' || p_row.entity || ' as it was published, from _valid_from until _valid_to; null where it still is.'
        );
        execute format(
            'create or replace function %I.%I(p_at timestamptz) returns setof %s language sql stable
            as ''select * from %s where _valid_from <= p_at and (_valid_to > p_at or _valid_to is null)''',
            p_row.schema_name, p_row.entity || '_as_of', v_history, v_history
        );
        execute format(
            'comment on function %I.%I(timestamptz) is %L', p_row.schema_name, p_row.entity || '_as_of',
            'The rows of ' || p_row.entity || ' as they were published at this time.'
        );
        perform syncline.grant_history(p_row.schema_name, p_row.entity);
        return true;
    end if;
    -- Readers of the history queue behind a lock that waits; a publish that cannot have it is tried again.
    perform set_config('lock_timeout', '100ms', true);
    -- A column that got another type keeps its past under another name.
    for v_old in
        select old.name, old.place
        from rows from (jsonb_to_recordset(syncline.table_columns(v_history::regclass)) as (name text, type text))
            with ordinality as old (name, type, place)
        inner join jsonb_to_recordset(syncline.table_columns(v_table)) as new (name text, type text)
            on old.name = new.name and old.type <> new.type
    loop
        execute format(
            'alter table %s rename column %I to %I', v_history, v_old.name,
            format('%s_until_%s_%s', left(v_old.name, 30), to_char(p_at at time zone 'UTC', 'YYYYMMDDHH24MISS'), v_old.place)
        );
    end loop;
    select string_agg(format('add column %I %s', new.name, new.type), ', ') into v_columns
    from jsonb_to_recordset(syncline.table_columns(v_table)) as new (name text, type text)
    where not syncline.table_columns(v_history::regclass) @> jsonb_build_array(jsonb_build_object('name', new.name));
    if v_columns is not null then
        execute format('alter table %s %s', v_history, v_columns);
    end if;
    perform set_config('lock_timeout', v_timeout, true);
    return v_columns is not null or not syncline.same_columns(
        syncline.table_columns(v_table),
        syncline.table_columns(to_regclass(format('%I.%I', p_row.schema_name, p_row.entity || '_v' || p_row.current_version)))
    );
end
$$;
comment on function syncline.open_history(syncline.entities, smallint, timestamptz) is
'Makes the history of an entity, or adds the columns that it lacks; returns whether all rows are to be written.';

create or replace function syncline.record_history(
    p_row syncline.entities, p_build syncline.builds, p_spec jsonb, p_at timestamptz, p_is_all boolean
) returns void
language plpgsql
as $$
declare
    v_history text := format('%I.%I', p_row.schema_name, p_row.entity || '_history');
    v_table text := format('%I.%I', p_row.schema_name, p_row.entity || '_v' || p_build.version);
    v_list text;
    v_given text;
    v_hash text;
    v_is_all boolean;
    v_keys text;
begin
    if not coalesce((p_spec ->> 'history')::boolean, false) then
        return;
    end if;
    v_is_all := syncline.open_history(p_row, p_build.version, p_at) or p_is_all;
    -- Of columns that the version has not, or has no more, its rows hold nulls.
    select
        string_agg(quote_ident(h.name), ', '),
        string_agg(case when c.name is null then format('null::%s as %I', h.type, h.name) else quote_ident(h.name) end, ', '),
        format('md5(record_send(row(%s)))', string_agg(quote_ident(h.name), ', ' order by h.name))
    into v_list, v_given, v_hash
    from jsonb_to_recordset(syncline.table_columns(v_history::regclass)) as h (name text, type text)
    left join jsonb_to_recordset(syncline.table_columns(v_table::regclass)) as c (name text) on h.name = c.name
    where h.name not in ('_valid_from', '_valid_to');
    v_keys := case when v_is_all then 'true' else format('_key in (select delta._key from %I.%I as delta)', p_row.schema_name, p_row.entity || '_delta') end;
    execute format(
        'with before as (
            select ctid as _row, _key, %1$s as _hash, row_number() over (partition by _key, %1$s) as _place
            from %2$s where _valid_to is null and %3$s
        ),
        given as (
            select %6$s from %4$s where %3$s
        ),
        after as (
            select *, %1$s as _hash, row_number() over (partition by _key, %1$s) as _place from given
        ),
        closed as (
            update %2$s as history set _valid_to = $1
            from before
            where history.ctid = before._row and not exists (
                select 1 from after
                where after._key = before._key and after._hash = before._hash and after._place = before._place
            )
        )
        insert into %2$s (%5$s, _valid_from)
        select %5$s, $1 from after
        where not exists (
            select 1 from before
            where before._key = after._key and before._hash = after._hash and before._place = after._place
        )',
        v_hash, v_history, v_keys, v_table, v_list, v_given
    ) using p_at;
    if v_is_all then
        execute format('analyze %s', v_history);
    end if;
end
$$;
comment on function syncline.record_history(syncline.entities, syncline.builds, jsonb, timestamptz, boolean) is
'Ends the rows that a swap takes away and begins those that it brings, of an entity with history: those in delta, or all.';
