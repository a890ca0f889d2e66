-- Which checks passed on which builds, so that the next check reads what differs from there.

create table syncline.passes (
    definition text not null,
    build_id bigint not null references syncline.builds on delete cascade,
    parent_build bigint references syncline.builds on delete cascade,
    passed_at timestamptz not null default clock_timestamp(),
    unique nulls not distinct (definition, build_id, parent_build)
);
create index passes_build_idx on syncline.passes (build_id);
create index passes_parent_idx on syncline.passes (parent_build);
comment on table syncline.passes is
'Tests that found no row on a build, and for a relationships test on the build of the parent; by a checksum of the test''s SQL.';
