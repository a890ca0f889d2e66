-- What a publish or a rollback changes, row by row: written in its transaction, from the keys in delta.

create or replace function syncline.record_changes(
    p_publication bigint, p_entity text, p_is_rollback boolean, p_spec jsonb
) returns void
language plpgsql
as $$
begin
    if not coalesce((p_spec ->> 'changes')::boolean, true) then
        return;
    end if;
    -- Called before the swap: diff still shows the candidate against current, or current against the way back.
    insert into syncline.changes (publication_id, entity, _key, change, old, new)
    select
        p_publication, p_entity, swapped._key, swapped.change,
        case when (p_spec ->> 'redact')::boolean then syncline.without_values(swapped.old) else swapped.old end,
        case when (p_spec ->> 'redact')::boolean then syncline.without_values(swapped.new) else swapped.new end
    from syncline.diff_fields(p_entity) as found
    cross join lateral (
        select
            found._key,
            case when not p_is_rollback or found.change = 'updated' then found.change when found.change = 'inserted' then 'deleted' else 'inserted' end,
            case when p_is_rollback then found.new else found.old end,
            case when p_is_rollback then found.old else found.new end
    ) as swapped (_key, change, old, new);
end
$$;
comment on function syncline.record_changes(bigint, text, boolean, jsonb) is
'Records what a publish is about to change, or a rollback to take back.';

create or replace function syncline.without_values(p_content jsonb) returns jsonb
language sql immutable parallel safe
as $$ select coalesce(jsonb_object_agg(field, null), p_content) from jsonb_object_keys(p_content) as field $$;
comment on function syncline.without_values(jsonb) is 'An object''s fields, each null: what a redacted stream leaves of them.';

create or replace function syncline.record_swap(
    p_publication bigint, p_row syncline.entities, p_build syncline.builds, p_at timestamptz, p_is_rollback boolean
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
    -- What nothing is known of (it was published before models were kept) may be redacted.
    v_redacts boolean := (
        select bool_or(coalesce((m.spec ->> 'redact')::boolean, true))
        from syncline.builds as b
        left join syncline.models as m on b.signature = m.signature
        where b.build_id in (p_row.current_build, p_build.build_id)
    );
begin
    if p_row.current_version is not null then
        perform syncline.record_changes(
            p_publication, p_row.entity, p_is_rollback, coalesce(v_spec, '{}') || jsonb_build_object('redact', v_redacts)
        );
    end if;
    -- A rollback of the publish that asked for a history is in it, too.
    perform syncline.record_history(
        p_row, p_build,
        coalesce(v_spec, '{}') || case when p_is_rollback and v_had_history then '{"history": true}' else '{}' end::jsonb,
        p_at, not v_had_history
    );
    perform syncline.record_references(p_row, p_build, v_spec, p_at);
end
$$;
comment on function syncline.record_swap(bigint, syncline.entities, syncline.builds, timestamptz, boolean) is
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
    if p_age < interval '0' then
        raise exception using
            errcode = 'SY264', message = 'an age is not negative', hint = 'Give it as an interval: ''90 days''.';
    end if;
    delete from syncline.changes as c
    using syncline.publications as p
    where c.publication_id = p.publication_id and p.published_at < clock_timestamp() - p_age;
    get diagnostics v_count = row_count;
    return v_count;
end
$$;
comment on function syncline.prune_changes(interval) is 'Deletes changes that are older; returns their number.';
