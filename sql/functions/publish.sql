-- From candidate to current and back: checking, publishing, rolling back.

create or replace function syncline.register_entities(p_entities jsonb) returns void
language plpgsql
as $$
begin
    perform syncline.hold_run();
    update syncline.entities as known set parents = declared.parents
    from jsonb_to_recordset(p_entities) as declared (entity text, parents text[])
    where known.entity = declared.entity and known.parents is distinct from declared.parents;
end
$$;
comment on function syncline.register_entities(jsonb) is
'Notes which entities each entity reads, by ref() or by a relationships test: they are held with it.';

create or replace function syncline.check_error_ratio(p_entity text, p_max_ratio double precision) returns void
language plpgsql
as $$
declare
    v_bad bigint;
    v_live bigint;
begin
    select count(distinct _key) into v_bad
    from syncline.row_errors
    where run_id = syncline.session_run() and entity = p_entity and closed_at is null;
    select greatest(
        (select rows_total from syncline.results
        where run_id = syncline.session_run() and attempt = syncline.session_attempt() and entity = p_entity),
        (
            select sum(known.live_records)
            from syncline.entities as e
            inner join syncline.builds as b on coalesce(e.next_build, e.current_build) = b.build_id
            cross join lateral jsonb_object_keys(b.loads) as label
            inner join syncline.streams as known on label = known.source || '.' || known.stream
            where e.entity = p_entity
        )
    ) into v_live;
    if v_bad > 10 and v_bad > v_live * p_max_ratio then
        raise exception using
            errcode = 'SY302',
            message = format('%s of the %s records of %s have errors', v_bad, v_live, p_entity),
            hint = format('That is more than max_error_ratio (%s) allows; nothing was published. Look at `syncline errors`.', p_max_ratio);
    end if;
end
$$;
comment on function syncline.check_error_ratio(text, double precision) is
'Raises SY302 where more of an entity''s records have errors than max_error_ratio allows, and more than 10.';

create or replace function syncline.mark_checked(p_entities text[]) returns setof bigint
language plpgsql
as $$
begin
    perform syncline.hold_run();
    return query
    update syncline.builds as b set
        state = case when run.options ? 'limit' then 'trial' else 'checked' end, checked_at = clock_timestamp()
    from syncline.entities as e, syncline.runs as run
    where b.build_id = e.next_build and e.entity = any(p_entities)
        and b.run_id = run.run_id and run.run_id = syncline.session_run() and b.state = 'built'
    returning b.build_id;
end
$$;
comment on function syncline.mark_checked(text[]) is
'Marks the candidates that the session''s run built of these entities as checked (as trial under --limit); returns their numbers.';

create or replace function syncline.withdraw_candidates(p_run_id bigint, p_entities text[]) returns void
language plpgsql
as $$
declare
    v_entity record;
begin
    for v_entity in
        select e.entity, b.version, b.build_id, e.current_version
        from syncline.entities as e
        inner join syncline.builds as b on e.next_build = b.build_id
        where b.run_id = p_run_id and b.state in ('built', 'checked', 'failed', 'trial')
            and (p_entities is null or e.entity = any(p_entities))
        order by e.entity
        for no key update of e
    loop
        update syncline.builds set state = case when state = 'trial' then 'superseded' else 'failed' end
        where build_id = v_entity.build_id;
        update syncline.entities set next_build = null where entity = v_entity.entity;
        perform syncline.point_next(v_entity.entity, coalesce(v_entity.current_version, 3 - v_entity.version)::smallint);
    end loop;
end
$$;
comment on function syncline.withdraw_candidates(bigint, text[]) is
'Points next back at what is published for the candidates of a run that failed or was a trial: of these entities, or of all. Their keys stay in delta.';

create or replace function syncline.withdraw_lost_candidates() returns void
language plpgsql
as $$
declare
    v_run_id bigint;
begin
    for v_run_id in
        select distinct run.run_id
        from syncline.entities as e
        inner join syncline.builds as b on e.next_build = b.build_id
        inner join syncline.runs as run on b.run_id = run.run_id
        where run.status in ('queued', 'cancelled', 'abandoned') and b.state in ('built', 'checked', 'failed', 'trial')
    loop
        begin
            perform set_config('lock_timeout', '100ms', true), set_config('syncline.is_swapping', 'on', true);
            perform syncline.withdraw_candidates(v_run_id, null);
        exception when lock_not_available then
            null; -- somebody reads it just now: the next look, or the next build, has it
        end;
    end loop;
end
$$;
comment on function syncline.withdraw_lost_candidates() is
'Withdraws the candidates of runs whose process is gone, where nobody is in the way: it never waits long.';

create or replace function syncline.check_known(p_entities text[]) returns void
language plpgsql stable
as $$
declare
    v_unknown text;
begin
    select wanted into v_unknown
    from unnest(p_entities) as wanted
    where not exists (select 1 from syncline.entities as e where e.entity = wanted)
    limit 1;
    if found then
        raise exception using
            errcode = 'SY201',
            message = format('there is no entity %s', v_unknown),
            hint = 'Look at `syncline status` for the known ones.';
    end if;
end
$$;
comment on function syncline.check_known(text[]) is 'Raises SY201 for an entity that was never built.';

create or replace function syncline.publish(p_builds bigint[], p_lifts boolean default false) returns bigint
language plpgsql
set jit = off
as $$
declare
    v_publication bigint;
    v_at timestamptz;
    v_until timestamptz;
    v_item record;
    v_reason text;
begin
    perform syncline.hold_run();
    if cardinality(p_builds) = 0 then
        raise exception using
            errcode = 'SY303',
            message = 'there is nothing to publish',
            hint = 'Name the builds of candidates: `select * from syncline.publishable()`.';
    end if;
    perform pg_advisory_xact_lock(syncline.lock_class('publish'), 0);
    perform 1 from syncline.entities where next_build = any(p_builds) order by entity for no key update;
    -- Outside a run, what was built by one: a publish after a dry run.
    v_publication := syncline.open_publication(null, (select max(run_id) from syncline.builds where build_id = any(p_builds)));
    select published_at into v_at from syncline.publications where publication_id = v_publication;
    for v_item in
        select b as build, e as entity_row, b.*, e.current_build, e.next_build, e.held_at, base.loads as base_loads_now
        from unnest(p_builds) as wanted (build_id)
        inner join syncline.builds as b on wanted.build_id = b.build_id
        inner join syncline.entities as e on b.entity = e.entity
        left join syncline.builds as base on e.current_build = base.build_id
        order by b.entity
    loop
        v_reason := case
            when v_item.next_build is distinct from v_item.build_id then 'another build has taken its place'
            when v_item.state <> 'checked' then format('its state is %s, not checked', v_item.state)
            when v_item.base_build is distinct from v_item.current_build then 'another build was published since'
            when v_item.base_loads is distinct from v_item.base_loads_now then 'what is published has moved on since'
            when v_item.held_at is not null and not p_lifts then 'it is held after a rollback'
            else (
                select format('it reads %s, whose candidate is not published with it', used.key)
                from jsonb_each_text(v_item.inputs) as used
                inner join syncline.entities as other on used.key = other.entity
                where other.current_build is distinct from used.value::bigint
                    and used.value is not null
                    and not used.value::bigint = any(p_builds)
                limit 1
            )
        end;
        if v_reason is not null then
            raise exception using
                errcode = 'SY303',
                message = format('the candidate of %s cannot be published: %s', v_item.entity, v_reason),
                hint = 'Run again to build a new candidate.';
        end if;
        perform syncline.check_parents(v_item.build, v_item.entity_row, p_builds);
        perform syncline.record_swap(v_publication, v_item.entity_row, v_item.build, v_at, false);
        perform syncline.apply_conflicts(v_item.build_id);
        delete from syncline.conflict_findings where build_id = v_item.current_build;
    end loop;
    -- From here on readers may have to wait.
    v_until := clock_timestamp() + interval '100 ms';
    for v_item in
        select b.*, e.schema_name, e.current_build, syncline.may_recreate(b.signature) as may_recreate
        from syncline.builds as b
        inner join syncline.entities as e on b.entity = e.entity
        where b.build_id = any(p_builds)
        order by b.entity
    loop
        -- Each lock waits for what is left of the 100 ms: a waiting lock queues every later reader.
        perform set_config(
            'lock_timeout',
            greatest(1, ceil(extract(milliseconds from v_until - clock_timestamp())))::integer || 'ms',
            true
        );
        perform syncline.point_current(v_item.schema_name, v_item.entity, v_item.version, v_item.may_recreate);
        update syncline.builds set state = 'retired' where build_id = v_item.current_build;
        update syncline.builds set state = 'current', publication_id = v_publication where build_id = v_item.build_id;
        update syncline.entities set
            current_version = v_item.version, current_build = v_item.build_id, next_build = null, held_at = null
        where entity = v_item.entity;
    end loop;
    return v_publication;
end
$$;
comment on function syncline.publish(bigint[], boolean) is
'Points the current views of these builds'' entities at them in the caller''s transaction: all or none. Raises SY303 where one is not what was checked any more, and 55P03 where a view''s lock cannot be had within 100 ms.';

create or replace function syncline.check_parents(
    p_build syncline.builds, p_row syncline.entities, p_builds bigint[]
) returns void
language plpgsql stable
as $$
declare
    v_parents text[];
    v_is_candidate boolean;
begin
    -- A run checks together what it built together: rows may refer to some that only this build of the parent has.
    select array_agg(parent.entity order by parent.entity), bool_and(b.state = 'checked' and b.build_id = parent.next_build)
    into v_parents, v_is_candidate
    from syncline.entities as parent
    inner join syncline.builds as b
        on parent.entity = b.entity and b.run_id = p_build.run_id and b.attempt = p_build.attempt and b.checked_at is not null
    where parent.entity = any(p_row.parents) and parent.entity <> p_row.entity
        and b.build_id is distinct from parent.current_build
        and not b.build_id = any(p_builds);
    if v_parents is not null then
        raise exception using
            errcode = 'SY303',
            message = format(
                'the candidate of %s cannot be published: it was checked with the candidate of %s, which is not published with it',
                p_row.entity, array_to_string(v_parents, ', ')
            ),
            hint = case
                when v_is_candidate then format('Publish them together: syncline publish %s %s', array_to_string(v_parents, ' '), p_row.entity)
                else 'Run again to build a new candidate.'
            end;
    end if;
end
$$;
comment on function syncline.check_parents(syncline.builds, syncline.entities, bigint[]) is
'Raises SY303 where the run that built a candidate also built what its entity reads, by ref() or by a relationships test, and that is neither published nor among these.';

create or replace function syncline.open_publication(p_rolls_back bigint, p_run_id bigint) returns bigint
language sql
as $$
    -- Times of publications rise, whatever the clock does: histories are read by them.
    insert into syncline.publications (run_id, rolls_back, published_at)
    select
        coalesce(syncline.session_run(), p_run_id), p_rolls_back,
        greatest(clock_timestamp(), (select max(published_at) from syncline.publications) + interval '1 microsecond')
    returning publication_id
$$;
comment on function syncline.open_publication(bigint, bigint) is
'The row of a publish, or of a rollback of one, under the lock that lets one be at a time; returns its number.';

create or replace function syncline.announce(p_publication_id bigint) returns void
language sql
as $$
    select pg_notify(
        'syncline_published',
        jsonb_build_object('publication_id', publication_id, 'run_id', run_id)::text
    )
    from syncline.publications
    where publication_id = p_publication_id
$$;
comment on function syncline.announce(bigint) is
'Sends NOTIFY syncline_published with publication_id and run_id: what is downstream is up to date too.';

create or replace function syncline.publishable(p_entities text[] default null, p_is_held boolean default null)
returns table (entity text, build_id bigint)
language sql stable
as $$
    select e.entity, b.build_id
    from syncline.entities as e
    inner join syncline.builds as b on e.next_build = b.build_id
    where b.state = 'checked'
        and (p_entities is null or e.entity = any(p_entities))
        and (p_is_held is null or p_is_held = (e.held_at is not null))
    order by e.entity
$$;
comment on function syncline.publishable(text[], boolean) is 'The candidates that are checked: of these entities, held or not.';

create or replace function syncline.lift_holds(p_entities text[] default null) returns setof text
language sql
as $$
    update syncline.entities set held_at = null
    where held_at is not null and (p_entities is null or entity = any(p_entities))
    returning entity
$$;
comment on function syncline.lift_holds(text[]) is 'Lifts the holds that a rollback left; returns the entities.';

create or replace function syncline.view_blockers() returns table (entity text, blockers text)
language sql stable
as $$
    select e.entity, syncline.lock_holders(to_regclass(format('%I.%I', e.schema_name, e.entity || '_current')))
    from syncline.entities as e
    where exists (
        select 1
        from pg_catalog.pg_locks as held
        where held.relation = to_regclass(format('%I.%I', e.schema_name, e.entity || '_current'))
            and held.granted and held.pid <> pg_backend_pid()
    )
$$;
comment on function syncline.view_blockers() is 'Which sessions hold locks on current views, so that a publish can say who is in its way.';

create or replace function syncline.readers_of(p_entities text[]) returns setof text
language sql stable
as $$
    with recursive reading (entity) as (
        select unnest(p_entities)
        union
        select e.entity
        from syncline.entities as e
        inner join reading on reading.entity = any(e.parents)
    )

    select entity from reading
$$;
comment on function syncline.readers_of(text[]) is 'These entities and all that read them, however far.';

create or replace function syncline.rollback(p_entity text default null) returns setof text
language plpgsql
set jit = off
as $$
declare
    v_publication bigint;
    v_return bigint;
    v_at timestamptz;
    v_entities text[];
    v_until timestamptz;
    v_item record;
begin
    if p_entity is not null then
        perform syncline.check_known(array[p_entity]);
    end if;
    perform pg_advisory_xact_lock(syncline.lock_class('publish'), 0);
    select max(b.publication_id) into v_publication
    from syncline.builds as b
    where b.state = 'current' and (p_entity is null or b.entity = p_entity);
    select array_agg(b.entity order by b.entity) into v_entities
    from syncline.builds as b
    where b.publication_id = v_publication and b.state = 'current'
        and (p_entity is null or b.entity in (select syncline.readers_of(array[p_entity])));
    if v_entities is null then
        raise exception using
            errcode = 'SY305',
            message = coalesce(p_entity || ' was never published', 'nothing was ever published'),
            hint = 'Look at `syncline status`.';
    end if;
    perform 1 from syncline.entities where entity = any(v_entities) order by entity for no key update;
    perform set_config('syncline.is_swapping', 'on', true);
    v_return := syncline.open_publication(v_publication, null);
    select published_at into v_at from syncline.publications where publication_id = v_return;
    perform syncline.record_swap(v_return, e, older, v_at, true), syncline.restore_conflicts(e.current_build)
    from syncline.entities as e
    inner join syncline.builds as older
        on e.entity = older.entity and older.version = 3 - e.current_version and older.state = 'retired'
    where e.entity = any(v_entities);
    v_until := clock_timestamp() + interval '100 ms';
    for v_item in
        select
            e.*, older.build_id as older_build, older.version as older_version,
            syncline.may_recreate(older.signature) or syncline.may_recreate(newer.signature) as may_recreate
        from syncline.entities as e
        left join syncline.builds as older
            on e.entity = older.entity and older.version = 3 - e.current_version and older.state = 'retired'
        left join syncline.builds as newer on e.current_build = newer.build_id
        where e.entity = any(v_entities)
        order by e.entity
    loop
        if v_item.older_build is null then
            raise exception using
                errcode = 'SY305',
                message = format('%s has nothing to go back to', v_item.entity),
                hint = 'A rollback reaches one publish back, and not past a later build that wrote; run again to go forward.';
        end if;
        perform set_config(
            'lock_timeout',
            greatest(1, ceil(extract(milliseconds from v_until - clock_timestamp())))::integer || 'ms',
            true
        );
        perform syncline.point_current(v_item.schema_name, v_item.entity, v_item.older_version, v_item.may_recreate);
        delete from syncline.conflict_findings where build_id = v_item.next_build;
        update syncline.builds set state = 'superseded' where build_id in (v_item.current_build, v_item.next_build);
        update syncline.builds set state = 'current' where build_id = v_item.older_build;
        update syncline.entities set
            current_version = v_item.older_version, current_build = v_item.older_build, next_build = null
        where entity = v_item.entity;
        perform syncline.point_next(v_item.entity, v_item.older_version);
    end loop;
    update syncline.publications set rolled_back_at = clock_timestamp() where publication_id = v_publication;
    update syncline.entities set held_at = clock_timestamp()
    where entity in (select syncline.readers_of(v_entities));
    perform pg_notify('syncline_published', jsonb_build_object('rolled_back', v_publication)::text);
    return query select unnest(v_entities);
end
$$;
comment on function syncline.rollback(text) is
'Points current back at what it showed before the last publishing run, for all entities swapped then, or for one and those of them that read it, and holds them. Raises SY305 where there is nothing to go back to, 55P03 as publish does.';
