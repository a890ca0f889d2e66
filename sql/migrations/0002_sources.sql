-- What sources need beyond the core: going on with a fetch that was cut off, budgets of requests.

alter table syncline.streams add column unfinished jsonb;
comment on column syncline.streams.unfinished is 'A fetch that was cut off: what its next run needs to go on with it.';

create table syncline.request_budgets (
    budget text primary key,
    sent timestamptz[] not null default '{}'
);
comment on table syncline.request_budgets is 'The latest requests of each budget that workers share, oldest first.';
