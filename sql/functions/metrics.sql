-- The numbers that monitoring asks for: totals that are kept as things happen, and what holds at the moment.

create or replace function syncline.duration_bounds() returns double precision[]
language sql immutable
as $$ select '{1,2.5,5,10,30,60,120,300,600,1800,3600,7200,21600,Infinity}'::double precision[] $$;
comment on function syncline.duration_bounds() is 'The upper bounds of the histogram of durations, in seconds.';

create or replace function syncline.totals_of_run(p_run syncline.runs)
returns table (metric text, labels jsonb, amount numeric)
language sql stable
as $$
    with facts as (
        select
            jsonb_build_object(
                'sources', array_to_string(p_run.sources, ','), 'kind', syncline.run_kind(p_run.options), 'status', p_run.status
            ) as labels,
            extract(epoch from p_run.finished_at - p_run.started_at) as seconds,
            p_run.started_at is not null and p_run.status in ('succeeded', 'failed') as is_timed
    )

    select 'runs', facts.labels || jsonb_build_object('trigger', p_run.trigger), 1
    from facts
    union all
    select 'run_seconds', facts.labels, facts.seconds
    from facts
    where facts.is_timed
    union all
    select
        'run_bucket',
        facts.labels || jsonb_build_object(
            'le', (select min(bound)::text from unnest(syncline.duration_bounds()) as bound where bound >= facts.seconds)
        ),
        1
    from facts
    where facts.is_timed
$$;
comment on function syncline.totals_of_run(syncline.runs) is 'What a run that has ended adds to the totals.';

create or replace function syncline.add_total(p_metric text, p_labels jsonb, p_amount numeric) returns void
language sql
as $$
    insert into syncline.totals as known (metric, labels, value) values (p_metric, p_labels, p_amount)
    on conflict (metric, labels) do update set value = known.value + excluded.value
$$;
comment on function syncline.add_total(text, jsonb, numeric) is 'Adds to one of the totals.';

create or replace function syncline.count_ended_run() returns trigger
language plpgsql
as $$
begin
    -- In one order, so that two that end at a time never wait for each other.
    perform syncline.add_total(added.metric, added.labels, added.amount)
    from syncline.totals_of_run(new) as added
    order by added.metric, added.labels;
    return null;
end
$$;
comment on function syncline.count_ended_run() is 'Adds a run that has just ended to the totals.';

create or replace function syncline.count_load() returns trigger
language plpgsql
as $$
begin
    perform syncline.add_total(
        'records', jsonb_build_object('source', new.source, 'stream', new.stream, 'kind', counted.kind), counted.amount
    )
    from (
        values
        ('read', new.records_read), ('new', new.records_new), ('changed', new.records_changed),
        ('gone', new.records_gone), ('rejected', new.records_rejected)
    ) as counted (kind, amount)
    order by counted.kind;
    return null;
end
$$;
comment on function syncline.count_load() is 'Adds a load''s records to the totals.';

create or replace function syncline.count_published_rows() returns trigger
language plpgsql
as $$
begin
    perform syncline.add_total('rows', jsonb_build_object('entity', new.entity, 'kind', counted.kind), counted.amount)
    from (
        values ('inserted', new.rows_inserted), ('updated', new.rows_updated), ('deleted', new.rows_deleted)
    ) as counted (kind, amount)
    order by counted.kind;
    return null;
end
$$;
comment on function syncline.count_published_rows() is 'Adds the rows that a publish changed for readers to the totals.';

create or replace trigger count_ended_run
after update on syncline.runs
for each row when (old.status in ('queued', 'running') and new.status not in ('queued', 'running'))
execute function syncline.count_ended_run();

create or replace trigger count_load
after insert on syncline.loads
for each row execute function syncline.count_load();

create or replace trigger count_published_rows
after update on syncline.builds
for each row when (old.publication_id is null and new.publication_id is not null)
execute function syncline.count_published_rows();

create or replace view syncline.entity_freshness as
with recursive reading as (
    select e.entity, e.current_build as build_id
    from syncline.entities as e
    where e.current_build is not null
    union
    select reading.entity, other.current_build
    from reading
    inner join syncline.builds as b on reading.build_id = b.build_id
    cross join lateral jsonb_object_keys(b.inputs) as used (entity)
    inner join syncline.entities as other on used.entity = other.entity
),

oldest as (
    select reading.entity, min(load.started_at) as confirmed_at
    from reading
    inner join syncline.builds as b on reading.build_id = b.build_id
    cross join lateral jsonb_each_text(b.loads) as pinned (label, load_id)
    inner join syncline.loads as load on pinned.load_id::bigint = load.load_id
    group by reading.entity
)

select
    e.entity,
    published.published_at,
    coalesce(oldest.confirmed_at, published.published_at) as confirmed_at
from syncline.entities as e
inner join syncline.builds as b on e.current_build = b.build_id
inner join syncline.publications as published on b.publication_id = published.publication_id
left join oldest on e.entity = oldest.entity;
comment on view syncline.entity_freshness is
'Each published entity: since when this state of it is published, and when its sources were last asked and confirmed it: when the oldest load began that it is up to date with, of its own streams and of the entities it reads.';

create or replace view syncline.stream_freshness as
select s.source, s.stream, newest.started_at as asked_at
from syncline.streams as s
left join lateral (
    select load.started_at
    from syncline.loads as load
    where load.source = s.source and load.stream = s.stream and not load.is_trial
    order by load.load_id desc
    limit 1
) as newest on true
where s.is_declared;
comment on view syncline.stream_freshness is
'Each stream of the project: when its newest load began, trials left out; null where it was never loaded.';

create or replace function syncline.seconds_since(p_time timestamptz) returns double precision
language sql volatile
as $$ select greatest(0, extract(epoch from clock_timestamp() - p_time)) $$;
comment on function syncline.seconds_since(timestamptz) is 'How many seconds ago that was.';

create or replace function syncline.duration_buckets() returns table (labels jsonb, le double precision, runs numeric)
language sql stable
as $$
    select
        timed.labels,
        bounds.le,
        coalesce(sum(counted.value), 0)
    from syncline.totals as timed
    cross join unnest(syncline.duration_bounds()) as bounds (le)
    left join syncline.totals as counted
        on counted.metric = 'run_bucket'
        and counted.labels - 'le' = timed.labels
        and (counted.labels ->> 'le')::double precision <= bounds.le
    where timed.metric = 'run_seconds'
    group by timed.labels, bounds.le
$$;
comment on function syncline.duration_buckets() is 'The histogram of durations: how many runs took so many seconds or less.';

create or replace function syncline.metrics() returns table (metric text, labels jsonb, value double precision)
language sql volatile
as $$
    select known.metric, known.labels, known.value::double precision
    from syncline.totals as known
    where known.metric in ('runs', 'run_seconds')
    union all
    select known.metric, known.labels, known.value::double precision
    from syncline.totals as known
    inner join syncline.entities as e on known.labels ->> 'entity' = e.entity
    where known.metric = 'rows'
    union all
    select known.metric, known.labels, known.value::double precision
    from syncline.totals as known
    inner join syncline.streams as s on known.labels ->> 'source' = s.source and known.labels ->> 'stream' = s.stream
    where known.metric = 'records'
    union all
    select 'run_buckets', b.labels || jsonb_build_object('le', b.le::text), b.runs::double precision
    from syncline.duration_buckets() as b
    union all
    select 'queue_runs', jsonb_build_object('status', state.status), count(run.run_id)::double precision
    from (values ('queued'), ('running')) as state (status)
    left join syncline.runs as run on state.status = run.status and run.status in ('queued', 'running')
    group by state.status
    union all
    select 'queue_age', '{}', coalesce(max(syncline.seconds_since(run.due_at)), 0)
    from syncline.runs as run
    where run.status = 'queued' and not run.is_foreground and run.due_at <= clock_timestamp()
    union all
    select 'running_age', '{}', coalesce(max(syncline.seconds_since(run.started_at)), 0)
    from syncline.runs as run
    where run.status = 'running'
    union all
    select 'entity_freshness', jsonb_build_object('entity', fresh.entity), syncline.seconds_since(fresh.confirmed_at)
    from syncline.entity_freshness as fresh
    union all
    select 'entity_published', jsonb_build_object('entity', fresh.entity), extract(epoch from fresh.published_at)
    from syncline.entity_freshness as fresh
    union all
    select 'entity_rows', jsonb_build_object('entity', b.entity), b.rows_total
    from syncline.entities as e
    inner join syncline.builds as b on e.current_build = b.build_id
    union all
    select
        'stream_freshness',
        jsonb_build_object('source', fresh.source, 'stream', fresh.stream),
        syncline.seconds_since(fresh.asked_at)
    from syncline.stream_freshness as fresh
    where fresh.asked_at is not null
    union all
    select
        'row_errors',
        jsonb_build_object(
            'entity', coalesce(bad.entity, ''),
            'source', coalesce(bad.source, ''),
            'stream', coalesce(bad.stream, ''),
            'severity', bad.severity
        ),
        count(*)
    from syncline.row_errors as bad
    where bad.closed_at is null
    group by bad.entity, bad.source, bad.stream, bad.severity
    union all
    select 'incidents', jsonb_build_object('kind', kinds.kind), count(incident.incident_id)
    from unnest(syncline.incident_kinds()) as kinds (kind)
    left join syncline.incidents as incident on kinds.kind = incident.kind and incident.closed_at is null
    group by kinds.kind
    union all
    select 'tokens_expiring', '{}', count(*) filter (where token.is_expiring)
    from syncline.list_tokens() as token
$$;
comment on function syncline.metrics() is 'All numbers that /metrics shows, in one look.';
