-- Replay: what was rejected is kept, so that it can be tried again.

alter table syncline.row_errors add column note text;
comment on column syncline.row_errors.note is 'Why the error was closed though its record did not get in.';

create index row_errors_closed_idx on syncline.row_errors (closed_at) where closed_at is not null;

create table syncline.rejected_records (
    error_id bigint primary key references syncline.row_errors on delete cascade,
    record bytea not null,
    is_readable boolean not null default true
);
comment on table syncline.rejected_records is
'The bytes of records that loads rejected, as long as their row errors are open.';
comment on column syncline.rejected_records.is_readable is
'Whether these are the bytes of the record itself; not of a line or row that the connector could not read.';

create table syncline.replayed_errors (
    run_id bigint not null references syncline.runs on delete cascade,
    error_id bigint not null references syncline.row_errors on delete cascade,
    outcome text check (outcome in ('fine', 'bad', 'outrun', 'left')),
    primary key (run_id, error_id)
);
create index replayed_errors_error_idx on syncline.replayed_errors (error_id);
comment on table syncline.replayed_errors is
'What became of each row error that a run replayed: fine, bad still, outrun by a newer record, or left, since nothing can be replayed.';
