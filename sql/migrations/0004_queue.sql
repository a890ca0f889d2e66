-- The queue: when a run may start and how often it is tried, who asked to cancel it, which sources there are.

alter table syncline.runs
add column due_at timestamptz not null default now(),
add column backoff interval[] not null default '{1 second,10 seconds}' check (cardinality(backoff) = 2),
add column timeout interval,
add column is_foreground boolean not null default false,
add column schedule text,
add column retry_of bigint;
comment on column syncline.runs.due_at is 'The run does not start before.';
comment on column syncline.runs.backoff is 'The pause before the second attempt, which doubles with each, and the longest one.';
comment on column syncline.runs.timeout is 'An attempt that takes longer fails.';
comment on column syncline.runs.is_foreground is 'Only the process that asked for the run works it.';

create index loads_run_idx on syncline.loads (run_id);
create index runs_finished_idx on syncline.runs (finished_at);

create table syncline.cancellations (
    run_id bigint primary key references syncline.runs on delete cascade,
    requested_at timestamptz not null default clock_timestamp(),
    requested_by text not null
);
comment on table syncline.cancellations is 'Running runs that somebody asked to stop.';

alter table syncline.streams add column is_declared boolean not null default true;
comment on column syncline.streams.is_declared is 'Whether the project that migrated last declares the stream.';

alter table syncline.log_events add column request_id text;
comment on column syncline.log_events.request_id is 'The request that the event belongs to: that of its run, or of a call of the API.';
create index log_events_logged_idx on syncline.log_events (logged_at);

-- Their successors take more arguments, or give something else.
drop function if exists syncline.request_run(text[], text[], jsonb, text, text, text);
drop function if exists syncline.claim_run(bigint);
drop function if exists syncline.join_queue(bigint);
drop function if exists syncline.finish_run(text, jsonb);
drop function if exists syncline.run_reports(integer);
