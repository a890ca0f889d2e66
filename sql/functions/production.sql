-- What a look at a production installation has to know of its server.

create or replace function syncline.production_facts() returns jsonb
language sql stable
as $$
    select jsonb_build_object(
        'user', current_user,
        'is_superuser', (select rolsuper from pg_catalog.pg_roles where rolname = current_user),
        'owner', (select pg_get_userbyid(nspowner) from pg_catalog.pg_namespace where nspname = 'syncline'),
        'is_owner', (select pg_has_role(nspowner, 'usage') from pg_catalog.pg_namespace where nspname = 'syncline'),
        'lacking_rights', syncline.lacking_rights(),
        'pg_cron', syncline.pg_cron_state(),
        'live_tokens', case
            when has_function_privilege('syncline.list_tokens()', 'execute')
                then (select count(*) from syncline.list_tokens() as token where token.state = 'live')
        end,
        'workers', (
            select count(*)
            from pg_catalog.pg_stat_activity
            where datname = current_database() and application_name = 'syncline worker'
        ),
        'connections', (select count(*) from pg_catalog.pg_stat_activity where backend_type = 'client backend'),
        'max_connections', current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer,
        'is_encrypted', (select ssl from pg_catalog.pg_stat_ssl where pid = pg_backend_pid()),
        'is_archiving', current_setting('archive_mode') <> 'off'
        or exists (select from pg_catalog.pg_replication_slots),
        'settings', jsonb_object_agg(setting.name, setting.setting),
        'at', clock_timestamp()
    )
    from pg_catalog.pg_settings as setting
    where setting.name in (
        'statement_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout',
        'autovacuum', 'fsync', 'full_page_writes', 'track_counts'
    )
$$;
comment on function syncline.production_facts() is
'What `syncline doctor --production` judges: the user''s rights, pg_cron, workers at work, connections, settings of the server, its clock.';

create or replace function syncline.lacking_rights() returns text[]
language sql stable
as $$
    select coalesce(array_agg(lacking order by lacking), '{}')
    from (
        select format('%s on %s', privilege, made.oid::regclass) as lacking
        from pg_catalog.pg_class as made, unnest(array['select', 'insert', 'update', 'delete']) as privilege
        where made.relnamespace = 'syncline'::regnamespace
            and made.relkind = 'r'
            and made.relname not in ('tokens', 'migrations', 'function_files', 'roles')
            and not has_table_privilege(made.oid, privilege)
        union all
        select format('ownership of %s', made.oid::regclass)
        from pg_catalog.pg_class as made
        where made.relnamespace in (select to_regnamespace(quote_ident('raw_' || source)) from syncline.streams)
            and made.relkind in ('r', 'v')
            and not pg_has_role(made.relowner, 'usage')
    ) as found
$$;
comment on function syncline.lacking_rights() is 'What the current user would have to be granted to work runs; empty for a runner.';
