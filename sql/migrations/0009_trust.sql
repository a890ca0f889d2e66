-- Trust: what each build was made by, decisions of people, conflicts between sources, changes, external references.

create table syncline.models (
    signature text primary key,
    entity text not null references syncline.entities on delete cascade,
    spec jsonb not null,
    created_at timestamptz not null default clock_timestamp()
);
create index models_entity_idx on syncline.models (entity);
comment on table syncline.models is 'What the materialization handed over for each signature that a build had: SQL, streams, settings.';

create table syncline.touches (
    touch_id bigint generated always as identity primary key,
    entity text not null references syncline.entities on delete cascade,
    _key text not null,
    touched_at timestamptz not null default clock_timestamp()
);
create index touches_entity_idx on syncline.touches (entity, touch_id);
comment on table syncline.touches is 'Keys that the next build looks at though no record changed; numbered in commit order.';

alter table syncline.builds add column last_touch bigint not null default 0;
comment on column syncline.builds.last_touch is 'The newest touch that the build knows of.';

create table syncline.overrides (
    override_id bigint generated always as identity primary key,
    entity text not null references syncline.entities on delete cascade,
    _key text not null,
    column_name text not null,
    value jsonb,
    source text,
    displaced jsonb,
    reason text,
    set_by text not null,
    set_at timestamptz not null default clock_timestamp(),
    touch_id bigint not null,
    lifted_by text,
    lifted_at timestamptz,
    lift_touch_id bigint,
    check ((lifted_at is null) = (lift_touch_id is null))
);
create unique index overrides_in_force_idx on syncline.overrides (entity, _key, column_name) where lifted_at is null;
create index overrides_key_idx on syncline.overrides (entity, _key);
comment on table syncline.overrides is 'Values that people set, or the source that they trust, for one field of one row; they outrank every source until they are lifted.';
comment on column syncline.overrides.source is 'The source whose value wins as long as it has one; null where `value` is set.';
comment on column syncline.overrides.displaced is 'What current showed without the override; it returns where no live record supplies a value.';

create table syncline.conflicts (
    conflict_id bigint generated always as identity primary key,
    entity text not null references syncline.entities on delete cascade,
    _key text not null,
    column_name text not null,
    candidates jsonb not null,
    winner text,
    rule text not null check (rule in ('authority', 'priority', 'kept')),
    state text not null default 'open' check (state in ('open', 'ignored', 'resolved', 'closed')),
    times_seen bigint not null default 1,
    first_seen_at timestamptz not null default clock_timestamp(),
    last_seen_at timestamptz not null default clock_timestamp(),
    closed_at timestamptz,
    decided_by text,
    decided_at timestamptz,
    reason text,
    unique (entity, _key, column_name)
);
create index conflicts_state_idx on syncline.conflicts (state, entity, conflict_id);
comment on table syncline.conflicts is 'Fields of published rows on which sources disagree: one row each, however often it is met.';

create table syncline.conflict_findings (
    build_id bigint not null references syncline.builds on delete cascade,
    _key text not null,
    column_name text not null,
    candidates jsonb,
    winner text,
    rule text,
    before jsonb,
    is_applied boolean not null default false,
    primary key (build_id, _key, column_name)
);
comment on table syncline.conflict_findings is
'What builds found, until they are published: disagreements, and (without candidates) those that are gone; `before` is the way back.';

alter table syncline.results add column conflicts_found bigint not null default 0;
comment on column syncline.results.conflicts_found is 'Fields on which sources disagree as they did not before, and which no override decides.';

alter table syncline.publications add column rolls_back bigint;
comment on column syncline.publications.rolls_back is 'The publication that a rollback took back.';

create table syncline.changes (
    change_id bigint generated always as identity primary key,
    publication_id bigint not null references syncline.publications on delete cascade,
    entity text not null references syncline.entities on delete cascade,
    _key text not null,
    change text not null check (change in ('inserted', 'updated', 'deleted')),
    old jsonb,
    new jsonb
);
create index changes_key_idx on syncline.changes (entity, _key, change_id);
create index changes_publication_idx on syncline.changes (publication_id);
comment on table syncline.changes is 'One row for each row that a publish or a rollback changed: of an update the fields that changed, old and new.';

create table syncline.external_refs (
    type text not null,
    source text not null,
    external_key text not null,
    ref_id uuid not null unique,
    entity text not null,
    metadata jsonb not null default '{}',
    first_seen_at timestamptz not null,
    gone_at timestamptz,
    primary key (type, source, external_key)
);
create index external_refs_gone_idx on syncline.external_refs (gone_at) where gone_at is not null;
create index external_refs_entity_idx on syncline.external_refs (entity);
comment on table syncline.external_refs is 'Stable internal ids of records elsewhere, by type, source and external key.';

-- Their successors take more arguments, or others.
drop function if exists syncline.check_model(text, text, boolean, jsonb, jsonb);
drop function if exists syncline.check_row_local(text, text);
drop function if exists syncline.reason_not_row_local(jsonb);
drop function if exists syncline.find_differing(syncline.builds, syncline.builds, text, text, jsonb, boolean);
drop function if exists syncline.write_first(syncline.builds, text, text, jsonb);
drop function if exists syncline.check_view_can_take(regclass, jsonb);
drop function if exists syncline.carried_columns(jsonb, jsonb);
