-- Two columns that read one path as different types each have their own row error.

alter table syncline.row_errors add column type text;
comment on column syncline.row_errors.type is 'The type that the value was to have, with its format where there is one.';

drop index syncline.row_errors_build_idx;
create unique index row_errors_build_idx
on syncline.row_errors (build_id, _key, path, coalesce(type, ''), md5(coalesce(value, '')))
where build_id is not null;

-- Their successors take more arguments, or give more columns.
drop function if exists syncline.add_row_error(text, bigint, text, text, text, text);
drop function if exists syncline.reject_collisions(syncline.builds, jsonb);
drop function if exists syncline.reject_losers(syncline.builds, jsonb, text);
drop function if exists syncline.sides(text);
