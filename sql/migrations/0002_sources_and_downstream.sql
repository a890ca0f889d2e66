-- Going on with a fetch that was cut off, budgets of requests, and what ordinary models were built from.

alter table syncline.streams
add column unfinished jsonb,
add column is_mixed boolean not null default false;
comment on column syncline.streams.unfinished is 'A fetch that was cut off: what its next run needs to go on with it.';
comment on column syncline.streams.is_mixed is
'Whether records came, by a push or a trial, that the cursor of the last full load does not know of.';

create table syncline.request_budgets (
    budget text primary key,
    sent timestamptz[] not null default '{}'
);
comment on table syncline.request_budgets is 'The latest requests of each budget that workers share, oldest first.';

create table syncline.downstream (
    model text primary key,
    stamp text not null,
    built_at timestamptz not null default clock_timestamp()
);
comment on table syncline.downstream is 'What each ordinary model downstream of entities was last built from.';
