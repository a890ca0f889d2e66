-- Schedules: when which run is asked for, and who does it: pg_cron, or a worker.

create table syncline.schedules (
    name text primary key check (name ~ '^[a-z0-9_-]{1,50}$'),
    cron text not null,
    zone text not null default 'UTC',
    sources text[] not null default '{}',
    entities text[] not null default '{}',
    options jsonb not null default '{}' check (jsonb_typeof(options) = 'object'),
    max_attempts integer not null default 3 check (max_attempts >= 1),
    timeout interval check (timeout > interval '0'),
    is_paused boolean not null default false,
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null default session_user,
    resumed_at timestamptz,
    settled_at timestamptz not null default clock_timestamp(),
    last_fired_at timestamptz,
    last_scheduled_for timestamptz,
    last_run bigint,
    missed_runs bigint not null default 0,
    last_error text,
    fired_by text not null default 'worker' check (fired_by in ('pg_cron', 'worker')),
    reason text
);
comment on table syncline.schedules is 'Which run is asked for when.';
comment on column syncline.schedules.cron is 'Minute, hour, day of the month, month, day of the week, in the time zone.';
comment on column syncline.schedules.sources is 'None are all that are declared.';
comment on column syncline.schedules.settled_at is
'Times up to here are done with: fired, passed over, or from before it was made, resumed or given other times.';
comment on column syncline.schedules.last_scheduled_for is 'The time that it was last fired for; last_fired_at is when that was done.';
comment on column syncline.schedules.missed_runs is 'How many times were passed over, in all, because nobody fired it.';
comment on column syncline.schedules.last_error is 'Why it could not be fired; null once it was.';
comment on column syncline.schedules.reason is 'Why workers fire it where pg_cron does not.';
