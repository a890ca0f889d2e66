-- Going on with a fetch that was cut off, budgets of requests, and what ordinary models were built from.

alter table syncline.streams add column unfinished jsonb;
comment on column syncline.streams.unfinished is 'A fetch that was cut off: what its next run needs to go on with it.';

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
