-- What typed() compiles to: checks that never fail a statement, and the record of what did not fit.

create or replace function syncline.typing_version() returns integer
language sql immutable parallel safe
as $$ select 1 $$;
comment on function syncline.typing_version() is
'Rises when typing gives other values than before; every entity is then typed anew.';

create or replace function syncline.can_cast(p_value text, p_type text) returns boolean
language plpgsql stable strict parallel unsafe
as $$
begin
    execute format('select cast($1 as %s)', p_type) using p_value;
    return true;
exception when others then
    return false;
end
$$;
comment on function syncline.can_cast(text, text) is
'Whether the text is a value of the type, by trying; the slow way, for Postgres 15.';

do $do$
begin
    if current_setting('server_version_num')::integer >= 160000 then
        execute $sql$
            create or replace function syncline.is_valid(p_value text, p_type text) returns boolean
            language sql stable strict parallel safe
            as $$ select pg_input_is_valid(p_value, p_type) $$
        $sql$;
    else
        -- The patterns vouch for what is surely a value of the type; the rest is tried.
        execute $sql$
            create or replace function syncline.is_valid(p_value text, p_type text) returns boolean
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
    end if;
end
$do$;
comment on function syncline.is_valid(text, text) is 'Whether the text is a value of the type; null for null.';

create or replace function syncline.add_row_error(
    p_key text, p_row_number bigint, p_path text, p_value text, p_message text, p_severity text
) returns void
language sql
as $$
    insert into syncline.row_errors (run_id, build_id, entity, _key, row_number, path, value, message, severity)
    values (
        syncline.session_run(),
        nullif(current_setting('syncline.build_id', true), '')::bigint,
        current_setting('syncline.entity', true),
        p_key,
        p_row_number,
        p_path,
        case when current_setting('syncline.redact', true) = 'on' then null else left(p_value, 1000) end,
        p_message,
        p_severity
    )
    on conflict do nothing
$$;
comment on function syncline.add_row_error(text, bigint, text, text, text, text) is
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
            p_value,
            case when p_value is null then 'a required value is missing' else 'not a valid ' || p_type end,
            case when p_is_required then 'error' else 'warning' end
        );
    end if;
    return null;
end
$$;
comment on function syncline.reject(text, bigint, text, text, text, boolean) is
'Gives null; inside a build it also records that the value at the path does not fit its type, or is missing.';
