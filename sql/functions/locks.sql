-- The advisory locks, one class each, and the fence that keeps a lost worker from writing.

create or replace function syncline.lock_class(p_kind text) returns integer
language sql immutable strict parallel safe
as $$ select 1937337955 + array_position(array['run', 'claim', 'stream', 'entity', 'publish', 'migrate', 'queue', 'incident', 'touch'], p_kind) $$;
comment on function syncline.lock_class(text)
is 'The first key of the advisory locks of a kind: run, claim, stream, entity, publish, migrate, queue, incident or touch.';

create or replace function syncline.session_run() returns bigint
language sql stable parallel safe
as $$ select nullif(current_setting('syncline.run_id', true), '')::bigint $$;
comment on function syncline.session_run() is 'The run this session works for, null outside a run.';

create or replace function syncline.session_attempt() returns integer
language sql stable parallel safe
as $$ select nullif(current_setting('syncline.attempt', true), '')::integer $$;
comment on function syncline.session_attempt() is 'The attempt of the run this session works for.';

create or replace function syncline.publishes() returns boolean
language sql stable
as $$
    select not exists (
        select 1 from syncline.runs
        where run_id = syncline.session_run() and ((options ->> 'dry_run')::boolean or options ? 'limit')
    )
$$;
comment on function syncline.publishes() is 'Whether the session''s run may publish: it is no dry run and no trial.';

create or replace function syncline.hold_run() returns void
language plpgsql
as $$
begin
    if syncline.session_run() is null then
        return;
    end if;
    perform 1
    from syncline.runs
    where run_id = syncline.session_run() and attempt = syncline.session_attempt() and status = 'running'
    for share;
    if not found then
        raise exception using
            errcode = 'SY101',
            message = format('run %s was taken from this process', syncline.session_run()),
            hint = 'Another run has taken over; look at `syncline runs`.';
    end if;
end
$$;
comment on function syncline.hold_run() is
'Holds the session''s run row until the transaction ends; raises SY101 where the run was lost. Every writing transaction of a run starts with it.';

create or replace function syncline.is_lock_held(p_kind text, p_number bigint) returns boolean
language sql stable
as $$
    select exists (
        select 1
        from pg_catalog.pg_locks
        where locktype = 'advisory'
            and database = (select oid from pg_catalog.pg_database where datname = current_database())
            and classid::bigint = syncline.lock_class(p_kind)
            and objid::bigint = p_number % 2147483647
            and objsubid = 2
            and granted
    )
$$;
comment on function syncline.is_lock_held(text, bigint) is 'Whether a session holds the numbered advisory lock of a kind.';

create or replace function syncline.is_run_alive(p_run_id bigint) returns boolean
language sql stable
as $$ select syncline.is_lock_held('run', p_run_id) $$;
comment on function syncline.is_run_alive(bigint) is 'Whether a session holds the run''s advisory lock.';

create or replace function syncline.lock_entity(p_entity text) returns void
language plpgsql
as $$
begin
    if syncline.session_run() is null then
        perform pg_advisory_xact_lock(syncline.lock_class('entity'), hashtext(p_entity));
    else
        perform syncline.hold_run();
    end if;
end
$$;
comment on function syncline.lock_entity(text) is
'Keeps others from building the entity until the transaction ends. A run holds the lock in the session of its worker, so its builds only show that they still belong to it.';

create or replace function syncline.lock_entities(p_entities text[]) returns void
language plpgsql
as $$
declare
    v_entity text;
begin
    for v_entity in select unnest(p_entities) as entity order by entity loop
        perform pg_advisory_lock(syncline.lock_class('entity'), hashtext(v_entity));
    end loop;
end
$$;
comment on function syncline.lock_entities(text[])
is 'Takes the locks of these entities for the session, in name order: from build to publish nobody else builds them.';

create or replace function syncline.unlock_entities(p_entities text[]) returns void
language sql
as $$ select pg_advisory_unlock(syncline.lock_class('entity'), hashtext(entity)) from unnest(p_entities) as entity $$;
comment on function syncline.unlock_entities(text[]) is 'Gives the locks of these entities back.';
