-- Database roles: one owns the control schema, one works runs, one reads what is published.
-- What owners and superusers call looks nowhere but in pg_catalog: the runner may create in public.

create or replace function syncline.grant_roles(
    p_owner text, p_runner text, p_reader text default null, p_schemas text[] default '{public}'
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform syncline.check_roles(array_remove(array[p_owner, p_runner, p_reader], null));
    perform syncline.revoke_duty(duty, role_name, p_runner, p_schemas)
    from syncline.roles
    where role_name is distinct from case duty when 'owner' then p_owner when 'runner' then p_runner else p_reader end;
    delete from syncline.roles;
    insert into syncline.roles (duty, role_name)
    select duty, role_name
    from (values ('owner', p_owner), ('runner', p_runner), ('reader', p_reader)) as wanted (duty, role_name)
    where role_name is not null;
    -- Streams that the owner's migrate makes are handed to the runner.
    if not pg_has_role(p_owner, p_runner, 'member') then
        execute format('grant %I to %I', p_runner, p_owner);
    end if;
    execute format('grant connect, create, temporary on database %I to %I', current_database(), p_runner);
    perform syncline.grant_schema(schema_name, p_runner, p_reader) from unnest(p_schemas) as schema_name;
    perform syncline.renew_grants();
exception when insufficient_privilege then
    raise exception using
        errcode = 'SY341',
        message = format('%s may not hand out these rights: %s', current_user, sqlerrm),
        hint = format(
            'Do it as a superuser, or as %s after a superuser''s: alter database %I owner to %s; grant %s to %s;',
            p_owner, current_database(), p_owner, p_runner, p_owner
        );
end
$$;
comment on function syncline.grant_roles(text, text, text, text[]) is
'Hands the control schema to the owner; raw and target objects, and what a run calls, to the runner; the current views to the reader. Those of later streams and entities follow by themselves. May be repeated: a role that loses its duty loses what came with it. Raises SY241 where roles are missing or the same, SY341 where the caller may not.';

create or replace function syncline.check_roles(p_roles text[]) returns void
language plpgsql
as $$
declare
    v_missing text[] := array(
        select quote_ident(name)
        from unnest(p_roles) as name
        where not exists (select from pg_catalog.pg_roles where rolname = name)
    );
begin
    if cardinality(v_missing) > 0 then
        raise exception using
            errcode = 'SY241',
            message = format('there is no database role named %s', array_to_string(v_missing, ', ')),
            hint = format('Make it first: create role %s login password ''...'';', v_missing[1]);
    end if;
    if cardinality(syncline.sorted(p_roles)) < cardinality(p_roles) then
        raise exception using
            errcode = 'SY241',
            message = 'owner, runner and reader are not three roles',
            hint = 'Where one role may do everything, no roles are needed.';
    end if;
end
$$;
comment on function syncline.check_roles(text[]) is 'Raises SY241 where a role does not exist or is named twice.';

create or replace function syncline.role_for(p_duty text) returns name
language sql stable
as $$ select role_name from syncline.roles where duty = p_duty $$;
comment on function syncline.role_for(text) is 'The database role that has this duty: owner, runner or reader; null where none was named.';

create or replace function syncline.revoke_duty(
    p_duty text, p_role name, p_runner text, p_schemas text[]
) returns void
language plpgsql
as $$
declare
    v_former_runner name := syncline.role_for('runner');
    v_statement text;
begin
    if not exists (select from pg_catalog.pg_roles where rolname = p_role) then
        return;
    end if;
    if p_duty = 'owner' then
        -- What it owns goes to the next owner.
        if exists (
            select
            from pg_catalog.pg_auth_members
            where roleid = quote_ident(v_former_runner)::regrole and member = quote_ident(p_role)::regrole
        ) then
            execute format('revoke %I from %I', v_former_runner, p_role);
        end if;
        return;
    end if;
    if p_duty = 'runner' then
        execute format('revoke all on all tables in schema syncline from %I', p_role);
        execute format('revoke all on all sequences in schema syncline from %I', p_role);
        execute format('revoke all on all functions in schema syncline from %I', p_role);
        execute format('revoke all on schema syncline from %I', p_role);
        execute format('revoke connect, create, temporary on database %I from %I', current_database(), p_role);
    end if;
    for v_statement in
        -- Schemas that its runs made.
        select case
            when place.nspowner = quote_ident(p_role)::regrole then format('alter schema %I owner to %I', place.nspname, p_runner)
            else format('revoke usage, create on schema %I from %I', place.nspname, p_role)
        end
        from pg_catalog.pg_namespace as place
        where (place.nspname = any (p_schemas) or place.nspname in (select schema_name from syncline.entities))
            and (p_duty = 'runner' or place.nspowner <> quote_ident(p_role)::regrole)
        union all
        select format('revoke all on %I.%I from %I', e.schema_name, e.entity || part, p_role)
        from syncline.entities as e
        cross join unnest(array['_current', '_history']) as part
        where p_duty = 'reader' and to_regclass(format('%I.%I', e.schema_name, e.entity || part)) is not null
            and (part = '_current' or syncline.has_history(e.entity))
    loop
        execute v_statement;
    end loop;
end
$$;
comment on function syncline.revoke_duty(text, name, text, text[]) is
'Takes from a role what grant_roles gave it as owner, runner or reader; target schemas that are its own go to the new runner.';

create or replace function syncline.renew_grants() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_owner name := syncline.role_for('owner');
begin
    -- The runner's own migrate makes streams alone, and those are its own.
    if v_owner is null or not pg_has_role(v_owner, 'member') then
        return;
    end if;
    perform syncline.own_control(v_owner);
    perform syncline.grant_control(syncline.role_for('runner'));
    perform syncline.own_data(syncline.role_for('runner'));
    perform syncline.grant_current(schema_name, entity) from syncline.entities;
    perform syncline.grant_history(schema_name, entity) from syncline.entities;
end
$$;
comment on function syncline.renew_grants() is
'Brings owners and grants in line with the roles last given to grant_roles: what `syncline migrate` ends with. Does nothing where there are none, or where the caller is not the owner.';

create or replace function syncline.own_control(p_owner name) returns void
language plpgsql
as $$
declare
    v_statement text;
begin
    for v_statement in
        select format('alter schema syncline owner to %I', p_owner)
        from pg_catalog.pg_namespace
        where nspname = 'syncline' and nspowner <> quote_ident(p_owner)::regrole
        union all
        -- Sequences of identity columns follow their tables.
        select format('alter %s %s owner to %I', case relkind when 'v' then 'view' else 'table' end, oid::regclass, p_owner)
        from pg_catalog.pg_class
        where relnamespace = 'syncline'::regnamespace and relkind in ('r', 'p', 'v') and relowner <> quote_ident(p_owner)::regrole
        union all
        select format('alter function %s owner to %I', oid::regprocedure, p_owner)
        from pg_catalog.pg_proc
        where pronamespace = 'syncline'::regnamespace and proowner <> quote_ident(p_owner)::regrole
    loop
        execute v_statement;
    end loop;
end
$$;
comment on function syncline.own_control(name) is 'Hands the control schema, its tables, views and functions to this role.';

create or replace function syncline.grant_control(p_runner name) returns void
language plpgsql
as $$
declare
    v_table record;
begin
    execute format('grant usage on schema syncline to %I', p_runner);
    execute format('grant usage, select on all sequences in schema syncline to %I', p_runner);
    execute format('grant execute on all functions in schema syncline to %I', p_runner);
    for v_table in
        select
            oid::regclass as name,
            case
                -- Digests of tokens are for the owner's functions alone.
                when relname = 'tokens' then null
                when relkind = 'v' or relname in ('migrations', 'function_files', 'roles') then 'select'
                else 'select, insert, update, delete'
            end as rights
        from pg_catalog.pg_class
        where relnamespace = 'syncline'::regnamespace and relkind in ('r', 'p', 'v')
    loop
        execute format('revoke all on %s from %I', v_table.name, p_runner);
        if v_table.rights is not null then
            execute format('grant %s on %s to %I', v_table.rights, v_table.name, p_runner);
        end if;
    end loop;
end
$$;
comment on function syncline.grant_control(name) is 'Grants what a run, a worker and the API need of the control schema: no right on tokens, none to change the schema.';

create or replace function syncline.own_data(p_runner name) returns void
language plpgsql
as $$
declare
    v_statement text;
begin
    for v_statement in
        select format('alter schema %I owner to %I', nspname, p_runner)
        from pg_catalog.pg_namespace
        where nspname in (select 'raw_' || source from syncline.streams) and nspowner <> quote_ident(p_runner)::regrole
        union all
        select format('alter %s %s owner to %I', case made.relkind when 'v' then 'view' else 'table' end, made.oid::regclass, p_runner)
        from pg_catalog.pg_class as made
        inner join pg_catalog.pg_namespace as place on made.relnamespace = place.oid
        where made.relkind in ('r', 'v')
            and made.relowner <> quote_ident(p_runner)::regrole
            and (
                place.nspname in (select 'raw_' || source from syncline.streams)
                or exists (
                    select
                    from syncline.entities as e, unnest(array['v1', 'v2', 'next', 'current', 'delta']) as part
                    where e.schema_name = place.nspname and made.relname = e.entity || '_' || part
                )
                or exists (
                    select
                    from syncline.entities as e
                    where e.schema_name = place.nspname
                        and made.relname = e.entity || '_history'
                        and syncline.has_history(e.entity)
                )
            )
        union all
        select format('alter function %s owner to %I', made.oid::regprocedure, p_runner)
        from syncline.entities as e
        inner join pg_catalog.pg_type as row_type
            on row_type.typrelid = to_regclass(format('%I.%I', e.schema_name, e.entity || '_history'))
        inner join pg_catalog.pg_proc as made
            on row_type.typnamespace = made.pronamespace and row_type.oid = made.prorettype and made.proname = e.entity || '_as_of'
        where made.proowner <> quote_ident(p_runner)::regrole and syncline.has_history(e.entity)
    loop
        execute v_statement;
    end loop;
end
$$;
comment on function syncline.own_data(name) is 'Hands the raw schemas and what they hold, and the tables, views and functions of entities, to this role.';

create or replace function syncline.grant_schema(p_schema text, p_runner text, p_reader text) returns void
language plpgsql
as $$
begin
    if to_regnamespace(quote_ident(p_schema)) is null then
        -- The first run makes it, and then it is the runner's.
        return;
    end if;
    execute format('grant usage, create on schema %I to %I', p_schema, p_runner);
    if p_reader is not null then
        execute format('grant usage on schema %I to %I', p_schema, p_reader);
    end if;
end
$$;
comment on function syncline.grant_schema(text, text, text) is 'Lets the runner build in a target schema, and the reader find what is in it.';

create or replace function syncline.grant_current(p_schema text, p_entity text) returns void
language plpgsql
as $$
declare
    v_reader name := syncline.role_for('reader');
    v_view regclass := to_regclass(format('%I.%I', p_schema, p_entity || '_current'));
begin
    if v_reader is null or v_view is null then
        return;
    end if;
    if not has_schema_privilege(v_reader, p_schema, 'usage') then
        execute format('grant usage on schema %I to %I', p_schema, v_reader);
    end if;
    if not has_table_privilege(v_reader, v_view, 'select') then
        execute format('grant select on %s to %I', v_view, v_reader);
    end if;
end
$$;
comment on function syncline.grant_current(text, text) is 'Lets the reader, where there is one, read what is published of an entity.';

create or replace function syncline.grant_history(p_schema text, p_entity text) returns void
language plpgsql
as $$
declare
    v_reader name := syncline.role_for('reader');
    v_history regclass := to_regclass(format('%I.%I', p_schema, p_entity || '_history'));
begin
    if v_reader is null or v_history is null or not syncline.has_history(p_entity) then
        return;
    end if;
    if not has_table_privilege(v_reader, v_history, 'select') then
        execute format('grant select on %s to %I', v_history, v_reader);
    end if;
end
$$;
comment on function syncline.grant_history(text, text) is 'Lets the reader, where there is one, read the history of an entity.';
