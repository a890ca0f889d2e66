-- What typed() compiles to: checks that never fail a statement, and the record of what did not fit.

create or replace function syncline.typing_version() returns integer
language sql immutable parallel safe
as $$ select 2 $$;
comment on function syncline.typing_version() is
'Rises when typing gives other values than before; every entity is then typed anew.';

-- Called with constants, so that the planner leaves one branch of what asks for it.
create or replace function syncline.type_family(p_type text) returns text
language sql immutable parallel safe
as $$
    select
        case
            when t ~ '(\]|\marray)$' then 'array'
            when t ~ '^(smallint|int2|integer|int|int4|bigint|int8|numeric|decimal|dec|real|float4|float8|float|double precision)( ?[(].*)?$' then 'number'
            when t = 'date' then 'date'
            when t ~ '^(timestamptz|timestamp.* with time zone)' then 'timestamptz'
            when t ~ '^timestamp' then 'timestamp'
            when t ~ '^(timetz|time.* with time zone)' then 'timetz'
            when t ~ '^time\M' then 'time'
            when t ~ '^interval\M' then 'interval'
            when t ~ '^(date|ts|tstz|int4|int8|num)(multi)?range$' then 'range'
            when t = 'bytea' then 'bytea'
            else 'other'
        end
    from regexp_replace(replace(lower(btrim(p_type)), 'pg_catalog.', ''), '\s+', ' ', 'g') as t
$$;
comment on function syncline.type_family(text) is
'Which types share a rule on what text they take beyond what Postgres takes: number, date, timestamp, array, other, and so on.';

create or replace function syncline.can_cast(p_value text, p_type text) returns boolean
language plpgsql stable strict parallel unsafe
as $$
begin
    -- A cast cuts a text to varchar(n); a field of a record takes what the type's input takes.
    execute format(
        'select cast($1 as %1$s), field.value from jsonb_to_record(jsonb_build_object(''value'', $1)) as field (value %1$s)', p_type
    ) using p_value;
    return true;
exception when others then
    return false;
end
$$;
comment on function syncline.can_cast(text, text) is
'Whether Postgres takes the text as the type, by trying; the slow way, for Postgres 15.';

do $do$
begin
    if current_setting('server_version_num')::integer >= 160000 then
        execute $sql$
            create or replace function syncline.is_castable(p_value text, p_type text) returns boolean
            language sql stable strict parallel safe
            as $$ select pg_input_is_valid(p_value, p_type) $$
        $sql$;
        -- JSON writes numbers in one way only, and Postgres tells it quickly.
        execute $sql$
            create or replace function syncline.is_decimal(p_value text) returns boolean
            language sql stable parallel safe
            as $$ select pg_input_is_valid(p_value, 'json') or p_value !~ '[_xXoObB]' $$
        $sql$;
    else
        -- The patterns vouch for what is surely a value of the type; the rest is tried.
        execute $sql$
            create or replace function syncline.is_castable(p_value text, p_type text) returns boolean
            language sql stable
            as $$
                select
                    case p_type
                        when 'smallint' then p_value ~ '^-?[0-9]{1,4}$'
                        when 'integer' then p_value ~ '^-?[0-9]{1,9}$'
                        when 'int' then p_value ~ '^-?[0-9]{1,9}$'
                        when 'bigint' then p_value ~ '^-?[0-9]{1,18}$'
                        when 'numeric' then p_value ~ '^-?[0-9]{1,100}([.][0-9]{1,100})?$'
                        when 'double precision' then p_value ~ '^-?[0-9]{1,15}([.][0-9]{1,15})?$'
                        when 'boolean' then p_value in ('true', 'false')
                        when 'date' then p_value ~ '^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$'
                        when 'timestamptz' then
                            p_value ~ '^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])[T ]([01][0-9]|2[0-3])(:[0-5][0-9]){2}([.][0-9]{1,6})?(Z|[+-]0[0-9]:?00)?$'
                        when 'uuid' then p_value ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                        when 'text' then true
                        else false
                    end
                    or syncline.can_cast(p_value, p_type)
            $$
        $sql$;
        execute $sql$
            create or replace function syncline.is_decimal(p_value text) returns boolean
            language sql stable parallel safe
            as $$ select p_value !~ '[_xXoObB]' $$
        $sql$;
    end if;
end
$do$;
comment on function syncline.is_castable(text, text) is 'Whether Postgres takes the text as the type; null for null.';
comment on function syncline.is_decimal(text) is
'Whether a number is written without digits'' groups and without another base, which only newer Postgres takes.';

-- Nothing here may depend on the clock or on a setting of the server: DateStyle, the time zone, special words. The
-- first comparison of dates and times is the quick one; the pattern behind it is for what it does not vouch for.
create or replace function syncline.has_form(p_value text, p_type text) returns boolean
language sql stable parallel safe
as $$
    select
        case syncline.type_family(p_type)
            when 'number' then syncline.is_decimal(p_value)
            when 'date' then
                (p_value like '____-__-__' and p_value !~ '[^0-9-]|--|-$')
                or p_value ~ '^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?( ?[Zz]| ?[+-][0-9]{2}(:?[0-9]{2})?)?)?\s*$'
                or p_value ~* '^\s*[+-]?infinity\s*$'
            when 'timestamptz' then
                (p_value like '____-__-__T__:__:__Z' and p_value !~ '[^0-9TZ:-]|[-:T][-:TZ]')
                or p_value ~ '^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?( ?[Zz]| ?[+-][0-9]{2}(:?[0-9]{2})?)?)?\s*$'
                or p_value ~* '^\s*[+-]?infinity\s*$'
            when 'timestamp' then
                p_value ~ '^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?)?\s*$'
                or p_value ~* '^\s*[+-]?infinity\s*$'
            when 'time' then p_value ~ '^\s*[0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?\s*$'
            when 'timetz' then p_value ~ '^\s*[0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?( ?[Zz]| ?[+-][0-9]{2}(:?[0-9]{2})?)?\s*$'
            when 'interval' then p_value !~* 'infinity'
            when 'range' then p_value !~* 'now|today|yesterday|tomorrow|epoch|allballs|_|0[xob]'
            when 'bytea' then p_value like '\\x%'
            when 'array' then syncline.has_array_form(p_value, p_type)
            else true
        end
$$;
comment on function syncline.has_form(text, text) is
'Whether a text that Postgres takes as the type says the same on every server and at every time: dates in ISO 8601, decimal numbers. Of an array it may fail on a text that Postgres does not take.';

create or replace function syncline.has_array_form(p_value text, p_type text) returns boolean
language sql stable parallel safe
as $$
    select coalesce(bool_and(syncline.has_form(element, regexp_replace(p_type, '\s*(\[.*\]|\marray.*)\s*$', '', 'i'))), true)
    from unnest(p_value::text[]) as element
$$;
comment on function syncline.has_array_form(text, text) is 'Whether has_form holds for each element of an array.';

create or replace function syncline.is_valid(p_value text, p_type text) returns boolean
language sql stable
as $$ select syncline.is_castable(p_value, p_type) and syncline.has_form(p_value, p_type) $$;
comment on function syncline.is_valid(text, text) is
'Whether typed() takes the text as a value of the type; null for null.';

-- Nothing else may be asked of the text of an exact transform: in a build's first try its cast is the check.
create or replace function syncline.is_valid(p_value text, p_type text, p_transform text) returns boolean
language sql stable
as $$ select syncline.is_castable(p_value, p_type) is not false $$;
comment on function syncline.is_valid(text, text, text) is
'Whether the text that a transform gave is a value of the type; true for null.';

create or replace function syncline.has_form(p_value text, p_type text, p_transform text) returns boolean
language sql immutable parallel safe
as $$ select true $$;
comment on function syncline.has_form(text, text, text) is
'True: a transform gives one form only.';

create or replace function syncline.array_literal(p_value jsonb, p_of_json boolean) returns text
language sql immutable parallel safe
as $$
    select
        case jsonb_typeof(p_value)
            when 'array' then (
                select
                    '{' || coalesce(string_agg(
                        case
                            when jsonb_typeof(element) = 'null' then 'NULL'
                            when jsonb_typeof(element) = 'array' and not p_of_json then syncline.array_literal(element, false)
                            else '"' || replace(replace(
                                case when p_of_json then element::text else element #>> '{}' end, '\', '\\'), '"', '\"'
                            ) || '"'
                        end, ',' order by place
                    ), '') || '}'
                from jsonb_array_elements(p_value) with ordinality as elements (element, place)
            )
            else p_value #>> '{}'
        end
$$;
comment on function syncline.array_literal(jsonb, boolean) is
'A JSON array as the text of a Postgres array, arrays in it as its dimensions unless its elements are JSON themselves; anything else as its text.';

create or replace function syncline.add_row_error(
    p_key text, p_row_number bigint, p_path text, p_type text, p_value text, p_message text, p_severity text
) returns void
language sql
as $$
    insert into syncline.row_errors (run_id, build_id, entity, _key, row_number, path, type, value, message, severity)
    values (
        syncline.session_run(),
        nullif(current_setting('syncline.build_id', true), '')::bigint,
        current_setting('syncline.entity', true),
        p_key,
        p_row_number,
        p_path,
        p_type,
        case when current_setting('syncline.redact', true) = 'on' then null else left(p_value, 1000) end,
        p_message,
        p_severity
    )
    on conflict do nothing
$$;
comment on function syncline.add_row_error(text, bigint, text, text, text, text, text) is
'Records a row error of the build at hand, once.';

-- Declared stable so that Postgres still merges subqueries and CTEs around it; its one effect is idempotent.
-- Declared parallel safe because it either raises or runs where syncline.write_typed has turned parallel plans off.
create or replace function syncline.reject(
    p_key text, p_row_number bigint, p_path text, p_type text, p_value text, p_is_required boolean
) returns text
language plpgsql stable parallel safe
as $$
begin
    if current_setting('syncline.rejects', true) = 'raise' then
        raise exception using errcode = 'SY000', message = 'a value does not fit';
    end if;
    if coalesce(current_setting('syncline.build_id', true), '') <> '' then
        perform syncline.add_row_error(
            p_key,
            p_row_number,
            p_path,
            p_type,
            p_value,
            case when p_value is null then 'a required value is missing' else 'not a valid ' || regexp_replace(p_type, '^text as ', '') end,
            case when p_is_required then 'error' else 'warning' end
        );
    end if;
    return null;
end
$$;
comment on function syncline.reject(text, bigint, text, text, text, boolean) is
'Gives null; inside a build it also records that the value at the path does not fit its type, or is missing.';
