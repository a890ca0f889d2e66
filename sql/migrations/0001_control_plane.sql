-- The control plane: what was asked for, what was done, and what each table in the target schema holds.

create table syncline.runs (
    run_id bigint generated always as identity primary key,
    status text not null default 'queued'
    check (status in ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'abandoned')),
    trigger text not null check (trigger in ('manual', 'scheduler', 'api', 'webhook', 'cli')),
    triggered_by text,
    request_id text not null,
    sources text[] not null,
    entities text[] not null default '{}',
    options jsonb not null default '{}',
    pinned_loads jsonb not null default '{}',
    attempt integer not null default 0,
    max_attempts integer not null default 1,
    requested_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    error jsonb
);
create index runs_open_idx on syncline.runs (status) where status in ('queued', 'running');

create table syncline.steps (
    run_id bigint not null references syncline.runs on delete cascade,
    attempt integer not null,
    step text not null check (step in ('load', 'build', 'check', 'publish')),
    status text not null check (status in ('running', 'succeeded', 'failed', 'abandoned')),
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    primary key (run_id, attempt, step)
);

create table syncline.streams (
    source text not null,
    stream text not null,
    last_load bigint,
    last_full_at timestamptz,
    live_records bigint not null default 0,
    pruned_through bigint not null default 0,
    key_fields text[],
    known_fields text[],
    cursor jsonb,
    primary key (source, stream)
);

create table syncline.loads (
    load_id bigint generated always as identity primary key,
    source text not null,
    stream text not null,
    run_id bigint references syncline.runs on delete set null,
    kind text not null check (kind in ('full', 'increment')),
    is_trial boolean not null default false,
    is_closing boolean not null default true,
    records_read bigint not null,
    records_new bigint not null,
    records_changed bigint not null,
    records_gone bigint not null,
    records_rejected bigint not null,
    live_records bigint not null,
    started_at timestamptz not null,
    finished_at timestamptz not null default clock_timestamp()
);
create index loads_stream_idx on syncline.loads (source, stream, load_id);

create table syncline.entities (
    entity text primary key check (octet_length(entity) <= 50),
    schema_name text not null,
    unique_key text[] not null default '{}',
    current_version smallint check (current_version in (1, 2)),
    current_build bigint,
    next_build bigint,
    is_delta_all boolean not null default true,
    parents text[] not null default '{}',
    held_at timestamptz
);

create table syncline.publications (
    publication_id bigint generated always as identity primary key,
    run_id bigint references syncline.runs on delete set null,
    published_at timestamptz not null default clock_timestamp(),
    rolled_back_at timestamptz
);

create table syncline.builds (
    build_id bigint generated always as identity primary key,
    entity text not null references syncline.entities,
    version smallint not null check (version in (1, 2)),
    state text not null
    check (state in ('built', 'failed', 'trial', 'checked', 'current', 'retired', 'superseded')),
    run_id bigint references syncline.runs on delete set null,
    attempt integer,
    base_build bigint,
    base_loads jsonb,
    loads jsonb not null,
    inputs jsonb not null default '{}',
    signature text not null,
    columns jsonb not null,
    is_written_anew boolean not null,
    rows_total bigint not null,
    rows_inserted bigint not null,
    rows_updated bigint not null,
    rows_deleted bigint not null,
    rows_unchanged bigint not null,
    keys_rejected bigint not null,
    created_at timestamptz not null default clock_timestamp(),
    checked_at timestamptz,
    publication_id bigint references syncline.publications
);
create index builds_entity_idx on syncline.builds (entity, build_id);
create index builds_run_idx on syncline.builds (run_id);

create table syncline.rejected_keys (
    build_id bigint not null references syncline.builds on delete cascade,
    _key text not null,
    primary key (build_id, _key)
);

create table syncline.results (
    run_id bigint not null references syncline.runs on delete cascade,
    attempt integer not null,
    entity text not null,
    version smallint not null,
    rows_total bigint not null,
    rows_inserted bigint not null,
    rows_updated bigint not null,
    rows_deleted bigint not null,
    rows_unchanged bigint not null,
    keys_rejected bigint not null,
    primary key (run_id, attempt, entity)
);

create table syncline.row_errors (
    error_id bigint generated always as identity primary key,
    run_id bigint references syncline.runs on delete set null,
    load_id bigint,
    build_id bigint,
    source text,
    stream text,
    entity text,
    _key text,
    row_number bigint,
    path text,
    column_name text,
    value text,
    message text not null,
    severity text not null check (severity in ('warning', 'error')),
    created_at timestamptz not null default clock_timestamp(),
    closed_at timestamptz
);
create unique index row_errors_build_idx
on syncline.row_errors (build_id, _key, path, md5(coalesce(value, '')))
where build_id is not null;
create index row_errors_entity_idx on syncline.row_errors (entity, _key) where closed_at is null;
create index row_errors_stream_idx on syncline.row_errors (source, stream, _key) where closed_at is null;
create index row_errors_run_idx on syncline.row_errors (run_id);

create table syncline.log_events (
    event_id bigint generated always as identity primary key,
    run_id bigint references syncline.runs on delete cascade,
    logged_at timestamptz not null default clock_timestamp(),
    level text not null check (level in ('debug', 'info', 'warning', 'error')),
    event text not null,
    detail jsonb not null default '{}'
);
create index log_events_run_idx on syncline.log_events (run_id, event_id);

comment on schema syncline is 'Syncline''s control plane; its functions and views are the interface, its tables are private.';
comment on table syncline.runs is 'One sync each, from request to report.';
comment on table syncline.steps is 'The steps of each attempt of a run: load, build, check, publish.';
comment on table syncline.streams is 'What each stream remembers between loads.';
comment on table syncline.loads is 'One fetch of one stream each; load numbers rise in commit order within a stream.';
comment on table syncline.entities is 'Each entity: which version is current, which build is the candidate.';
comment on table syncline.publications is 'One transaction each that swapped current views.';
comment on table syncline.builds is 'One writing of a version each.';
comment on table syncline.rejected_keys is 'Keys that a build rejected and that every build on it tries again.';
comment on table syncline.results is 'What each run did to each entity, written or not.';
comment on table syncline.row_errors is 'Records and values that did not fit; they never stop a run by themselves.';
comment on table syncline.log_events is 'What happened in a run, without values of records.';
