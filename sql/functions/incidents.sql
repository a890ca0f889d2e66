-- What is wrong at the moment: opened and closed by what the tables say, told once however many workers look.

create or replace function syncline.incident_kinds() returns text[]
language sql immutable
as $$ select '{run_failed,run_slow,error_ratio,stale_entity,missed_schedule,token_expiring}'::text[] $$;
comment on function syncline.incident_kinds() is 'The kinds of incident that the database knows of.';

create or replace function syncline.is_watched(p_run syncline.runs) returns boolean
language sql stable
as $$
    select p_run.started_at is not null and syncline.run_kind(p_run.options) in ('sync', 'load', 'build')
$$;
comment on function syncline.is_watched(syncline.runs) is
'Whether a run''s failure or slowness is an incident: it came to work, and is no push, dry run or trial, whose caller is told.';

create or replace function syncline.is_answered(p_run syncline.runs, p_slower_than interval default null) returns boolean
language sql stable
as $$
    -- A source that the project has no more needs no answer.
    select p_run.status <> 'running' and not exists (
        select 1
        from unnest(p_run.sources) as wanted (source)
        where exists (select 1 from syncline.streams as s where s.source = wanted.source and s.is_declared)
            and not exists (
                select 1
                from syncline.runs as later
                where later.finished_at > p_run.finished_at
                    and later.status = 'succeeded'
                    and wanted.source = any(later.sources)
                    and (p_slower_than is null or later.finished_at - later.started_at <= p_slower_than)
                    and (
                        (later.entities = p_run.entities and later.options = p_run.options)
                        or (
                            later.entities = '{}'
                            and syncline.run_kind(later.options) = 'sync'
                            and not later.options ? 'streams'
                        )
                    )
            )
    )
$$;
comment on function syncline.is_answered(syncline.runs, interval) is
'Whether each source of a run was synced since, in whole or by the same request, and within this time where one is given.';

create or replace function syncline.find_failed() returns table (kind text, subject text, detail jsonb)
language sql stable
as $$
    select
        'run_failed',
        array_to_string(failed.sources, ', '),
        jsonb_build_object(
            'run_id', failed.run_id,
            'status', failed.status,
            'attempts', failed.attempt,
            'at', failed.finished_at,
            'message', failed.error ->> 'message',
            'hint', failed.error ->> 'hint'
        )
    from (
        select distinct on (run.sources) run as it
        from syncline.runs as run
        where run.status in ('failed', 'abandoned')
            and run.finished_at > clock_timestamp() - interval '2 days'
            and syncline.is_watched(run)
        order by run.sources, run.finished_at desc
    ) as newest
    cross join lateral (select (newest.it).*) as failed
    where not syncline.is_answered(newest.it)
$$;
comment on function syncline.find_failed() is 'Of each set of sources the newest run that failed for good or was lost, where none has succeeded since.';

create or replace function syncline.find_slow(p_slower_than interval) returns table (kind text, subject text, detail jsonb)
language sql stable
as $$
    select
        'run_slow',
        array_to_string(slow.sources, ', '),
        jsonb_build_object(
            'run_id', slow.run_id,
            'status', slow.status,
            'at', slow.started_at,
            'seconds', round(extract(epoch from coalesce(slow.finished_at, clock_timestamp()) - slow.started_at)),
            'bound', extract(epoch from p_slower_than)
        )
    from (
        select distinct on (run.sources) run as it
        from syncline.runs as run
        where ((run.status = 'running') or (run.status = 'succeeded' and run.finished_at > clock_timestamp() - interval '1 hour'))
            and coalesce(run.finished_at, clock_timestamp()) - run.started_at > p_slower_than
            and syncline.is_watched(run)
        order by run.sources, run.run_id desc
    ) as newest
    cross join lateral (select (newest.it).*) as slow
    where not syncline.is_answered(newest.it, p_slower_than)
$$;
comment on function syncline.find_slow(interval) is
'Of each set of sources the newest run that takes or took longer than this, where none has been quick enough since.';

create or replace function syncline.find_erring(p_ratio double precision) returns table (kind text, subject text, detail jsonb)
language sql stable
as $$
    with bad as (
        select
            held.entity,
            case when held.entity is null then held.source || '.' || held.stream end as stream,
            count(distinct coalesce(held._key, held.row_number::text)) as records
        from syncline.row_errors as held
        where held.closed_at is null
        group by 1, 2
    ),

    measured as (
        select
            coalesce(bad.entity, bad.stream) as subject,
            bad.entity is not null as is_entity,
            bad.records,
            greatest(
                bad.records,
                current_build.rows_total,
                (
                    select sum(s.live_records)
                    from syncline.streams as s
                    where s.source || '.' || s.stream = bad.stream
                        or coalesce(current_build.loads, next_build.loads) ? (s.source || '.' || s.stream)
                )
            ) as live
        from bad
        left join syncline.entities as e on bad.entity = e.entity
        left join syncline.builds as current_build on e.current_build = current_build.build_id
        left join syncline.builds as next_build on e.next_build = next_build.build_id
    )

    select
        'error_ratio',
        m.subject,
        jsonb_build_object(
            'is_entity', m.is_entity, 'bad', m.records, 'live', m.live, 'ratio', m.records / m.live, 'bound', p_ratio
        )
    from measured as m
    where m.records > m.live * p_ratio
$$;
comment on function syncline.find_erring(double precision) is
'Entities and streams of which more than this share of the live records have row errors that still hold.';

create or replace function syncline.find_stale(p_bounds jsonb) returns table (kind text, subject text, detail jsonb)
language sql stable
as $$
    select
        'stale_entity',
        fresh.entity,
        jsonb_build_object('at', fresh.confirmed_at, 'published_at', fresh.published_at, 'bound', bound.value::double precision)
    from jsonb_each_text(p_bounds) as bound
    inner join syncline.entity_freshness as fresh on bound.key = fresh.entity
    where fresh.confirmed_at < clock_timestamp() - make_interval(secs => bound.value::double precision)
$$;
comment on function syncline.find_stale(jsonb) is 'Entities that no load has confirmed for longer than this: entity to seconds.';

create or replace function syncline.find_incidents(p_bounds jsonb, p_missed jsonb)
returns table (kind text, subject text, detail jsonb)
language sql stable
as $$
    select found.* from syncline.find_failed() as found
    union all
    select found.*
    from syncline.find_slow(make_interval(secs => (p_bounds ->> 'slower_than')::double precision)) as found
    where p_bounds ->> 'slower_than' is not null
    union all
    select found.*
    from syncline.find_erring((p_bounds ->> 'error_ratio')::double precision) as found
    where p_bounds ->> 'error_ratio' is not null
    union all
    select found.* from syncline.find_stale(coalesce(p_bounds -> 'stale_after', '{}')) as found
    union all
    select 'missed_schedule', missed.name, jsonb_build_object('at', missed.scheduled_for, 'message', missed.last_error)
    from jsonb_to_recordset(p_missed) as missed (name text, scheduled_for timestamptz, last_error text)
    union all
    select
        'token_expiring',
        token.name,
        jsonb_build_object('at', min(token.expires_at), 'role', min(token.role))
    from syncline.list_tokens() as token
    where token.is_expiring
    group by token.name
$$;
comment on function syncline.find_incidents(jsonb, jsonb) is
'What is wrong at the moment. `p_bounds`: slower_than (seconds), error_ratio, stale_after (entity to seconds), each where it is watched; `p_missed`: name, scheduled_for and last_error of schedules that were not fired.';

create or replace function syncline.is_over(p_incident syncline.incidents, p_bounds jsonb) returns boolean
language sql stable
as $$
    -- A failure that was found days ago, and its answer, are still in the table of runs.
    select coalesce(
        (
            select syncline.is_answered(
                run,
                case when p_incident.kind = 'run_slow' then make_interval(secs => (p_bounds ->> 'slower_than')::double precision) end
            )
            from syncline.runs as run
            where run.run_id = (p_incident.detail ->> 'run_id')::bigint
                and (p_incident.kind = 'run_failed' or p_bounds ->> 'slower_than' is not null)
        ),
        true
    )
$$;
comment on function syncline.is_over(syncline.incidents, jsonb) is
'Whether an open incident that is not found any more is over: of a run, only where it was answered.';

create or replace function syncline.check_incidents(p_bounds jsonb default '{}', p_missed jsonb default '[]') returns boolean
language plpgsql
as $$
declare
    v_found jsonb;
begin
    if not pg_try_advisory_xact_lock(syncline.lock_class('incident'), 0) then
        return false;
    end if;
    select coalesce(jsonb_agg(to_jsonb(wrong)), '[]') into v_found from syncline.find_incidents(p_bounds, p_missed) as wrong;
    update syncline.incidents as gone set
        closed_at = clock_timestamp(),
        -- Nobody needs to hear of the end of what nobody heard of.
        closing_told_at = case when gone.told_at is null then clock_timestamp() end,
        told = '{}',
        tries = 0,
        try_at = clock_timestamp()
    where gone.closed_at is null
        and not exists (
            select 1
            from jsonb_to_recordset(v_found) as wrong (kind text, subject text)
            where wrong.kind = gone.kind and wrong.subject = gone.subject
        )
        and syncline.is_over(gone, p_bounds);
    insert into syncline.incidents (kind, subject, detail)
    select wrong.kind, wrong.subject, wrong.detail
    from jsonb_to_recordset(v_found) as wrong (kind text, subject text, detail jsonb)
    on conflict (kind, subject) where closed_at is null do nothing;
    return true;
end
$$;
comment on function syncline.check_incidents(jsonb, jsonb) is
'Opens and closes incidents by what find_incidents finds; false where another session does so at this moment.';

create or replace function syncline.due_notice(p_incident syncline.incidents, p_repeat_after interval) returns text
language sql stable
as $$
    select case
        when p_incident.closed_at is not null then 'closed'
        -- Some have it and others still wait for it.
        when p_incident.told_at is null or cardinality(p_incident.told) > 0 then 'opened'
        when p_incident.told_at < clock_timestamp() - p_repeat_after then 'repeated'
    end
$$;
comment on function syncline.due_notice(syncline.incidents, interval) is
'What is to be told of an unsettled incident: opened, repeated or closed; null where nothing is.';

create or replace function syncline.claim_notices(p_repeat_after interval default null, p_limit integer default 10)
returns table (
    incident_id bigint,
    notice text,
    kind text,
    subject text,
    detail jsonb,
    opened_at timestamptz,
    closed_at timestamptz,
    told text[]
)
language sql
as $$
    update syncline.incidents as claimed set
        tries = claimed.tries + 1,
        -- The claim, and the pause after a try that failed: 30 seconds, doubled each time, up to an hour.
        try_at = clock_timestamp() + least(interval '1 hour', interval '30 seconds' * 2 ^ least(claimed.tries, 10))
    from (
        select due.incident_id, syncline.due_notice(due, p_repeat_after) as notice
        from syncline.incidents as due
        where due.closing_told_at is null
            and due.try_at <= clock_timestamp()
            and syncline.due_notice(due, p_repeat_after) is not null
        order by due.incident_id
        limit p_limit
        for update skip locked
    ) as due
    where claimed.incident_id = due.incident_id
    returning
        claimed.incident_id, due.notice, claimed.kind, claimed.subject, claimed.detail, claimed.opened_at, claimed.closed_at,
        claimed.told
$$;
comment on function syncline.claim_notices(interval, integer) is
'Takes messages that are due, so that no other worker sends them before the next try is due. `told` are digests of addresses that have it already.';

create or replace function syncline.finish_notice(p_incident_id bigint, p_notice text, p_told text[], p_is_done boolean)
returns void
language sql
as $$
    update syncline.incidents as known set
        told_at = case when p_notice <> 'closed' and cardinality(p_told) > 0 then clock_timestamp() else known.told_at end,
        closing_told_at = case when p_notice = 'closed' and p_is_done then clock_timestamp() end,
        told = case when p_is_done or stale.is_stale then '{}' else p_told end,
        tries = case when p_is_done or stale.is_stale then 0 else known.tries end,
        try_at = case when p_is_done or stale.is_stale then clock_timestamp() else known.try_at end
    from (
        -- It closed while its opening was being told: who was told hears of that too.
        select
            incident_id,
            p_notice <> 'closed' and closed_at is not null and (cardinality(p_told) > 0 or told_at is not null) as is_stale,
            p_notice <> 'closed' and closed_at is not null and cardinality(p_told) = 0 and told_at is null as is_unheard
        from syncline.incidents
        where incident_id = p_incident_id
    ) as stale
    where known.incident_id = stale.incident_id and not stale.is_unheard
$$;
comment on function syncline.finish_notice(bigint, text, text[], boolean) is
'Notes to which addresses a message went, by their digests, and whether that is all.';

create or replace view syncline.open_incidents as
select incident.incident_id, incident.kind, incident.subject, incident.detail, incident.opened_at, incident.told_at
from syncline.incidents as incident
where incident.closed_at is null;
comment on view syncline.open_incidents is 'What is wrong at the moment, since when, and when a message last said so.';
