-- What is wrong at the moment and who was told, and totals that do not fall when rows are deleted.

create table syncline.incidents (
    incident_id bigint generated always as identity primary key,
    kind text not null check (
        kind in ('run_failed', 'run_slow', 'error_ratio', 'stale_entity', 'missed_schedule', 'token_expiring')
    ),
    subject text not null,
    detail jsonb not null default '{}',
    opened_at timestamptz not null default clock_timestamp(),
    closed_at timestamptz,
    told_at timestamptz,
    closing_told_at timestamptz,
    told text[] not null default '{}',
    tries integer not null default 0,
    try_at timestamptz not null default clock_timestamp()
);
comment on table syncline.incidents is 'What went wrong: opened once for each kind and subject, closed when it is well again.';
comment on column syncline.incidents.told_at is 'When a message last said that it is open.';
comment on column syncline.incidents.closing_told_at is 'When a message said that it is over, or when it ended without anybody having been told of it.';
comment on column syncline.incidents.told is 'Digests of the addresses that have the message that others still wait for.';
comment on column syncline.incidents.tries is 'How often the message that is due was tried.';
create unique index incidents_open_idx on syncline.incidents (kind, subject) where closed_at is null;
create index incidents_unsettled_idx on syncline.incidents (try_at) where closing_told_at is null;

create table syncline.totals (
    metric text not null,
    labels jsonb not null,
    value numeric not null,
    primary key (metric, labels)
);
comment on table syncline.totals is 'Counters since the table was made; rows that they counted may be gone.';

create index runs_failed_idx on syncline.runs (finished_at) where status in ('failed', 'abandoned');
