-- Conflicts: fields of which sources say different things. A build finds them; they count from publish on.

create or replace function syncline.stash_conflicts(p_build syncline.builds, p_merge jsonb) returns void
language plpgsql
as $$
begin
    if p_merge is not null then
        execute format(
            'create unlogged table %1$I.disagreements as select _key, _conflicts from %1$I.rows where _conflicts is not null',
            'syncline_' || p_build.entity
        );
    end if;
end
$$;
comment on function syncline.stash_conflicts(syncline.builds, jsonb) is
'Keeps what sources disagree on in the workspace, where it does not become a column of the entity.';

create or replace function syncline.judge_conflict(
    p_field jsonb, p_candidates jsonb, out winner text, out rule text
)
language sql immutable
as $$
    select
        first.source,
        case
            when first.source is null then 'kept'
            when exists (
                select 1 from jsonb_array_elements_text(p_field -> 'truths') as other
                where p_candidates -> other <> p_candidates -> first.source
            ) then 'priority'
            else 'authority'
        end
    from (select) as one_row
    left join lateral (
        select truth.source
        from jsonb_array_elements_text(p_field -> 'truths') with ordinality as truth (source, place)
        where p_candidates ? truth.source
        order by truth.place
        limit 1
    ) as first on true
$$;
comment on function syncline.judge_conflict(jsonb, jsonb) is
'Which source wins a field, and by what: its priority over another source of truth, its authority over references; kept where there are only references, which rows keep from when they were new.';

create or replace function syncline.save_conflicts(
    p_build syncline.builds, p_build_id bigint, p_spec jsonb, p_merge jsonb, p_is_all boolean
) returns void
language plpgsql
as $$
declare
    v_work text := format('%I', 'syncline_' || p_build.entity);
begin
    execute format(
        'create unlogged table %s.found (
            _key text, column_name text, candidates jsonb, winner text, rule text, primary key (_key, column_name)
        )', v_work
    );
    if p_merge is not null then
        execute format(
            'insert into %1$s.found (_key, column_name, candidates, winner, rule)
            select found._key, found.column_name, %2$s, judged.winner, judged.rule
            from (
                select d._key, field.key as column_name, jsonb_object_agg(said.key, said.value) as candidates
                from %1$s.disagreements as d
                cross join lateral jsonb_each(d._conflicts) as field
                cross join lateral jsonb_each(nullif(field.value, ''null'')) as said
                where said.value <> ''null''
                    and not exists (select 1 from %1$s.kept where kept._key = d._key and kept.is_rejected)
                group by d._key, field.key
                having count(distinct said.value) > 1
            ) as found
            cross join lateral syncline.judge_conflict($1 -> found.column_name, found.candidates) as judged',
            v_work,
            case
                when (p_spec ->> 'redact')::boolean
                    then '(select jsonb_object_agg(source, ''redacted''::text) from jsonb_object_keys(found.candidates) as source)'
                else 'found.candidates'
            end
        ) using p_merge -> 'fields';
    end if;
    execute format('analyze %s.found', v_work);
    -- What was looked at and not found again is gone; where no source is merged any more, that is all.
    execute format(
        'insert into syncline.conflict_findings as f (build_id, _key, column_name, candidates, winner, rule)
        select $1, found._key, found.column_name, found.candidates, found.winner, found.rule
        from %1$s.found
        where %2$s
        union all
        select $1, c._key, c.column_name, null, null, null
        from %3$s
        where c.entity = $2 and c.state <> ''closed''
            and not exists (select 1 from %1$s.kept where kept._key = c._key and kept.is_rejected)
            and not exists (select 1 from %1$s.found where found._key = c._key and found.column_name = c.column_name)
        on conflict (build_id, _key, column_name) do update set
            candidates = excluded.candidates, winner = excluded.winner, rule = excluded.rule, is_applied = false',
        v_work,
        -- A build of all keys meets most of what is known once more: that is not news, and does not count.
        case when p_is_all then
            'not exists (
                select 1 from syncline.conflicts as c
                where c.entity = $2 and c._key = found._key and c.column_name = found.column_name and c.state <> ''closed''
                    and c.candidates = found.candidates and c.winner is not distinct from found.winner and c.rule = found.rule
            )'
            else 'true'
        end,
        case when p_is_all then 'syncline.conflicts as c'
            else format('%s.changed inner join syncline.conflicts as c on c._key = changed._key', v_work)
        end
    ) using p_build_id, p_build.entity;
    update syncline.results set conflicts_found = (
        select count(*)
        from syncline.conflict_findings as f
        where f.build_id = p_build_id
            and not f.is_applied
            and f.candidates is not null
            and not syncline.is_overridden(p_build.entity, f._key, f.column_name)
            and f.candidates is distinct from (
                select c.candidates
                from syncline.conflicts as c
                where c.entity = p_build.entity and c._key = f._key and c.column_name = f.column_name and c.state <> 'closed'
            )
    )
    where run_id = syncline.session_run() and attempt = syncline.session_attempt() and entity = p_build.entity;
end
$$;
comment on function syncline.save_conflicts(syncline.builds, bigint, jsonb, jsonb, boolean) is
'Saves what the build found of the keys it looked at: conflicts, and those that are gone.';

create or replace function syncline.is_overridden(p_entity text, p_key text, p_column text) returns boolean
language sql stable
as $$
    select exists (
        select 1 from syncline.overrides
        where entity = p_entity and _key = p_key and column_name = p_column and lifted_at is null
    )
$$;
comment on function syncline.is_overridden(text, text, text) is 'Whether an override of the field is set and not lifted.';

create or replace function syncline.apply_conflicts(p_build_id bigint) returns void
language plpgsql
-- What was just written has no statistics yet: taken for a few rows, the tables would be joined row by row, unindexed.
set enable_seqscan = off
as $$
declare
    v_entity text := (select entity from syncline.builds where build_id = p_build_id);
begin
    update syncline.conflict_findings as f set before = coalesce((
        select to_jsonb(c.*) from syncline.conflicts as c
        where c.entity = v_entity and c._key = f._key and c.column_name = f.column_name
    ), '{}')
    where f.build_id = p_build_id and f.before is null;
    update syncline.conflicts as c set
        candidates = f.candidates,
        winner = f.winner,
        rule = f.rule,
        -- What was ignored is these values, not all that may come.
        state = case
            when syncline.is_overridden(v_entity, f._key, f.column_name) then 'resolved'
            when c.state = 'ignored' and c.candidates = f.candidates then 'ignored'
            else 'open'
        end,
        times_seen = c.times_seen + 1,
        last_seen_at = clock_timestamp(),
        closed_at = null
    from syncline.conflict_findings as f
    where f.build_id = p_build_id and not f.is_applied and f.candidates is not null
        and c.entity = v_entity and c._key = f._key and c.column_name = f.column_name;
    insert into syncline.conflicts (entity, _key, column_name, candidates, winner, rule, state)
    select
        v_entity, f._key, f.column_name, f.candidates, f.winner, f.rule,
        case when syncline.is_overridden(v_entity, f._key, f.column_name) then 'resolved' else 'open' end
    from syncline.conflict_findings as f
    where f.build_id = p_build_id and not f.is_applied and f.candidates is not null and not exists (
        select 1 from syncline.conflicts as c
        where c.entity = v_entity and c._key = f._key and c.column_name = f.column_name
    );
    update syncline.conflicts as c set state = 'closed', closed_at = clock_timestamp()
    from syncline.conflict_findings as f
    where f.build_id = p_build_id and not f.is_applied and f.candidates is null
        and c.entity = v_entity and c._key = f._key and c.column_name = f.column_name;
    update syncline.conflict_findings set is_applied = true where build_id = p_build_id and not is_applied;
end
$$;
comment on function syncline.apply_conflicts(bigint) is
'What a build found counts from now on: its conflicts are opened or counted, and those that are gone are closed.';

create or replace function syncline.restore_conflicts(p_build_id bigint) returns void
language plpgsql
-- What was just written has no statistics yet: taken for a few rows, the tables would be joined row by row, unindexed.
set enable_seqscan = off
as $$
declare
    v_entity text := (select entity from syncline.builds where build_id = p_build_id);
begin
    delete from syncline.conflicts as c
    using syncline.conflict_findings as f
    where f.build_id = p_build_id and f.before = '{}'
        and c.entity = v_entity and c._key = f._key and c.column_name = f.column_name;
    update syncline.conflicts as c set
        candidates = was.candidates,
        winner = was.winner,
        rule = was.rule,
        state = case
            when was.state <> 'closed' and syncline.is_overridden(v_entity, c._key, c.column_name) then 'resolved'
            when was.state = 'resolved' then 'open'
            else was.state
        end,
        times_seen = was.times_seen,
        last_seen_at = was.last_seen_at,
        closed_at = was.closed_at
    from syncline.conflict_findings as f
    cross join lateral jsonb_populate_record(null::syncline.conflicts, f.before) as was
    where f.build_id = p_build_id and f.before <> '{}'
        and c.entity = v_entity and c._key = f._key and c.column_name = f.column_name;
    delete from syncline.conflict_findings where build_id = p_build_id;
end
$$;
comment on function syncline.restore_conflicts(bigint) is
'Puts the conflicts back as they were before the build was published; decisions of people stand.';

create or replace function syncline.prune_conflicts(p_age interval) returns bigint
language sql
as $$
    with pruned as (
        delete from syncline.conflicts as c
        where c.state = 'closed'
            and c.closed_at < clock_timestamp() - p_age
            -- One that a rollback would open again.
            and not exists (
                select 1
                from syncline.builds as b
                inner join syncline.conflict_findings as f on b.build_id = f.build_id
                where b.entity = c.entity and f._key = c._key and f.column_name = c.column_name
            )
        returning 1
    )

    select count(*) from pruned
$$;
comment on function syncline.prune_conflicts(interval) is
'Deletes conflicts that were closed longer ago; returns how many. What a rollback needs stays.';

create or replace function syncline.list_conflicts(
    p_entity text default null,
    p_states text[] default '{open}',
    p_key text default null,
    p_limit bigint default null,
    p_before bigint default null
) returns table (
    conflict_id bigint,
    entity text,
    _key text,
    column_name text,
    state text,
    candidates jsonb,
    winner text,
    rule text,
    times_seen bigint,
    first_seen_at timestamptz,
    last_seen_at timestamptz,
    closed_at timestamptz,
    decided_by text,
    decided_at timestamptz,
    reason text
)
language sql stable
as $$
    select
        c.conflict_id, c.entity, c._key, c.column_name, c.state, c.candidates, c.winner, c.rule, c.times_seen,
        c.first_seen_at, c.last_seen_at, c.closed_at, c.decided_by, c.decided_at, c.reason
    from syncline.conflicts as c
    where (p_entity is null or c.entity = p_entity)
        and (p_states is null or c.state = any (p_states))
        and (p_key is null or c._key = p_key)
        and (p_before is null or c.conflict_id < p_before)
    order by c.conflict_id desc
    limit p_limit
$$;
comment on function syncline.list_conflicts(text, text[], text, bigint, bigint) is
'Conflicts, newest first: of an entity, of these states, of a key, before the one numbered.';

create or replace function syncline.read_conflict(p_conflict_id bigint) returns syncline.conflicts
language plpgsql stable
as $$
declare
    v_conflict syncline.conflicts;
begin
    select * into v_conflict from syncline.conflicts where conflict_id = p_conflict_id;
    if not found then
        raise exception using
            errcode = 'SY201',
            message = format('there is no conflict %s', p_conflict_id),
            hint = 'Look at `syncline conflicts list`.';
    end if;
    return v_conflict;
end
$$;
comment on function syncline.read_conflict(bigint) is 'The conflict of this number; raises SY201 where there is none.';

create or replace function syncline.resolve_conflict(
    p_conflict_id bigint,
    p_value jsonb default null,
    p_source text default null,
    p_reason text default null,
    p_decided_by text default current_user
) returns bigint
language plpgsql
as $$
declare
    v_conflict syncline.conflicts := syncline.read_conflict(p_conflict_id);
begin
    if v_conflict.state = 'closed' then
        raise exception using
            errcode = 'SY363',
            message = format('conflict %s is closed: the sources agree, or the row is gone', p_conflict_id),
            hint = format(
                'To set the field all the same: syncline conflicts resolve %s %s %s --value ...',
                v_conflict.entity, syncline.shell_quoted(v_conflict._key), v_conflict.column_name
            );
    end if;
    return syncline.set_override(
        v_conflict.entity, v_conflict._key, v_conflict.column_name, p_value, p_source, p_reason, p_decided_by
    );
end
$$;
comment on function syncline.resolve_conflict(bigint, jsonb, text, text, text) is
'Decides a conflict by an override, of a value or of a source that is trusted; the next run builds it. Raises as syncline.set_override, and SY363 where it is closed.';

create or replace function syncline.ignore_conflict(
    p_conflict_id bigint, p_reason text default null, p_decided_by text default current_user
) returns void
language plpgsql
as $$
declare
    v_conflict syncline.conflicts := syncline.read_conflict(p_conflict_id);
begin
    if v_conflict.state not in ('open', 'ignored') then
        raise exception using
            errcode = 'SY363',
            message = format('conflict %s is %s, not open', p_conflict_id, v_conflict.state),
            hint = 'Lift its override first, if there is one.';
    end if;
    update syncline.conflicts set
        state = 'ignored', decided_by = p_decided_by, decided_at = clock_timestamp(), reason = p_reason
    where conflict_id = p_conflict_id;
end
$$;
comment on function syncline.ignore_conflict(bigint, text, text) is
'Leaves a conflict to its rule, silently, as long as the sources say what they say now. Raises SY363 where it is not open.';
