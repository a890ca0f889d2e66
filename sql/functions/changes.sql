-- What a publish or a rollback changes, row by row: written in its transaction, from the keys in delta.

create or replace function syncline.row_changes(
    p_entity text, p_old_version smallint, p_new_version smallint
) returns table (change text, _key text, old jsonb, new jsonb)
language plpgsql stable
as $$
declare
    v_row syncline.entities;
    v_identity text;
    v_schema text;
begin
    select * into v_row from syncline.entities where entity = p_entity;
    v_schema := v_row.schema_name;
    v_identity := coalesce(
        'jsonb_build_array(' || syncline.column_list(nullif(to_jsonb(v_row.unique_key), '[]'), 't.%I') || ')', 'to_jsonb(t._key)'
    );
    return query execute format(
        'with old_side as (
            select %1$s as identity, row_number() over (partition by %1$s order by t._key) as place, t._key, to_jsonb(t) - ''_key'' as content
            from %2$I.%3$I as t where t._key in (select delta._key from %2$I.%5$I as delta)
        ),
        new_side as (
            select %1$s as identity, row_number() over (partition by %1$s order by t._key) as place, t._key, to_jsonb(t) - ''_key'' as content
            from %2$I.%4$I as t where t._key in (select delta._key from %2$I.%5$I as delta)
        )
        select
            case when o.content is null then ''inserted'' when n.content is null then ''deleted'' else ''updated'' end,
            coalesce(n._key, o._key),
            case when n.content is null then o.content else syncline.differing_fields(o.content, n.content) end,
            case when o.content is null then n.content else syncline.differing_fields(n.content, o.content) end
        from new_side as n full join old_side as o using (identity, place)
        where n.content is distinct from o.content',
        v_identity, v_schema, p_entity || '_v' || p_old_version, p_entity || '_v' || p_new_version, p_entity || '_delta'
    );
end
$$;
comment on function syncline.row_changes(text, smallint, smallint) is
'The rows on which the versions of an entity differ, matched by unique key: of an update the fields that differ.';

create or replace function syncline.differing_fields(p_content jsonb, p_other jsonb) returns jsonb
language sql immutable parallel safe
as $$
    select jsonb_object_agg(field.key, field.value)
    from jsonb_each(p_content) as field
    where p_other -> field.key is distinct from field.value
$$;
comment on function syncline.differing_fields(jsonb, jsonb) is 'The fields of an object that another one has otherwise, or lacks.';

create or replace function syncline.record_changes(
    p_publication bigint, p_entity text, p_old_version smallint, p_new_version smallint, p_spec jsonb
) returns void
language plpgsql
as $$
begin
    if not coalesce((p_spec ->> 'changes')::boolean, true) then
        return;
    end if;
    insert into syncline.changes (publication_id, entity, _key, change, old, new)
    select
        p_publication, p_entity, found._key, found.change,
        case when (p_spec ->> 'redact')::boolean then syncline.without_values(found.old) else found.old end,
        case when (p_spec ->> 'redact')::boolean then syncline.without_values(found.new) else found.new end
    from syncline.row_changes(p_entity, p_old_version, p_new_version) as found;
end
$$;
comment on function syncline.record_changes(bigint, text, smallint, smallint, jsonb) is
'Records what a swap of the two versions changes.';

create or replace function syncline.without_values(p_content jsonb) returns jsonb
language sql immutable parallel safe
as $$ select jsonb_object_agg(field, null) from jsonb_object_keys(p_content) as field $$;
comment on function syncline.without_values(jsonb) is 'An object''s fields, each null: what a redacted stream leaves of them.';

create or replace function syncline.record_swap(
    p_publication bigint, p_row syncline.entities, p_build syncline.builds, p_at timestamptz
) returns void
language plpgsql
as $$
declare
    v_spec jsonb := (select spec from syncline.models where signature = p_build.signature);
    v_had_history boolean := exists (
        select 1
        from syncline.builds as b
        inner join syncline.models as m on b.signature = m.signature
        where b.build_id = p_row.current_build and (m.spec ->> 'history')::boolean
    );
begin
    if p_row.current_version is not null then
        perform syncline.record_changes(p_publication, p_row.entity, p_row.current_version, p_build.version, v_spec);
    end if;
    perform syncline.record_history(p_row, p_build, v_spec, p_at, not v_had_history);
    perform syncline.record_references(p_row, p_build, v_spec, p_at);
end
$$;
comment on function syncline.record_swap(bigint, syncline.entities, syncline.builds, timestamptz) is
'Records changes, history and external references of a build that takes the place of what is current, or comes back.';

create or replace function syncline.list_changes(
    p_entity text default null,
    p_key text default null,
    p_run_id bigint default null,
    p_since timestamptz default null,
    p_limit bigint default null,
    p_before bigint default null
) returns table (
    change_id bigint,
    entity text,
    _key text,
    change text,
    old jsonb,
    new jsonb,
    published_at timestamptz,
    publication_id bigint,
    run_id bigint,
    is_rollback boolean
)
language sql stable
as $$
    select
        c.change_id, c.entity, c._key, c.change, c.old, c.new,
        p.published_at, c.publication_id, p.run_id, p.rolls_back is not null
    from syncline.changes as c
    inner join syncline.publications as p on c.publication_id = p.publication_id
    where (p_entity is null or c.entity = p_entity)
        and (p_key is null or c._key = p_key)
        and (p_run_id is null or p.run_id = p_run_id)
        and (p_since is null or p.published_at >= p_since)
        and (p_before is null or c.change_id < p_before)
    order by c.change_id desc
    limit p_limit
$$;
comment on function syncline.list_changes(text, text, bigint, timestamptz, bigint, bigint) is
'The feed of changes, newest first: of an entity, a key, a run, since a time, before the one numbered.';

create or replace function syncline.prune_changes(p_age interval) returns bigint
language plpgsql
as $$
declare
    v_count bigint;
begin
    delete from syncline.changes as c
    using syncline.publications as p
    where c.publication_id = p.publication_id and p.published_at < clock_timestamp() - p_age;
    get diagnostics v_count = row_count;
    return v_count;
end
$$;
comment on function syncline.prune_changes(interval) is 'Deletes changes that are older; returns their number.';
