-- External references: stable internal ids of records elsewhere.

create or replace function syncline.external_id(p_type text, p_source text, p_external_key text) returns uuid
language sql immutable strict parallel safe
as $$
    -- A UUID of version 8 (RFC 9562): 122 bits of a SHA-256 over a text that tells the three apart.
    select (
        substr(hex, 1, 12) || '8' || substr(hex, 14, 3) || to_hex((8 + get_byte(digest, 8) % 4)::integer) || substr(hex, 18, 15)
    )::uuid
    from (select sha256(convert_to(jsonb_build_array(p_type, p_source, p_external_key)::text, 'UTF8'))) as hashed (digest)
    cross join lateral encode(digest, 'hex') as hex
$$;
comment on function syncline.external_id(text, text, text) is
'The internal id of a record elsewhere: always the same for the same type, source and external key, whether the record was loaded or not.';

create or replace function syncline.record_references(
    p_row syncline.entities, p_build syncline.builds, p_spec jsonb, p_at timestamptz
) returns void
language plpgsql
as $$
declare
    v_ref jsonb := nullif(p_spec -> 'external_ref', 'null');
    v_table text := format('%I.%I', p_row.schema_name, p_row.entity || '_v' || p_build.version);
    v_old text := format('%I.%I', p_row.schema_name, p_row.entity || '_v' || coalesce(p_row.current_version, p_build.version));
    v_delta text := format('%I.%I', p_row.schema_name, p_row.entity || '_delta');
    v_is_first boolean;
    v_metadata text;
begin
    if v_ref is null then
        return;
    end if;
    v_is_first := p_row.current_version is null
        or not exists (select 1 from syncline.external_refs where entity = p_row.entity);
    select 'jsonb_build_object(' || string_agg(format('%L, t.%I', name, name), ', ') || ')' into v_metadata
    from jsonb_array_elements_text(v_ref -> 'metadata') as name;
    if not v_is_first then
        execute format(
            'update syncline.external_refs as r set gone_at = $1
            where r.type = $2 and r.source = $3 and r.entity = $4 and r.gone_at is null
                and r.external_key in (select old.%1$I::text from %2$s as old where old._key in (select delta._key from %4$s as delta))
                and not exists (select 1 from %3$s as t where t.%1$I::text = r.external_key)',
            v_ref ->> 'key', v_old, v_table, v_delta
        ) using p_at, v_ref ->> 'type', v_ref ->> 'source', p_row.entity;
    end if;
    execute format(
        'insert into syncline.external_refs as r (type, source, external_key, ref_id, entity, metadata, first_seen_at)
        select distinct on (t.%1$I::text) $2, $3, t.%1$I::text, syncline.external_id($2, $3, t.%1$I::text), $4, %5$s, $1
        from %3$s as t
        where t.%1$I is not null and (%2$L or t._key in (select delta._key from %4$s as delta))
        order by t.%1$I::text, t._key
        on conflict (type, source, external_key) do update set
            entity = excluded.entity, metadata = excluded.metadata, gone_at = null',
        v_ref ->> 'key', v_is_first, v_table, v_delta, coalesce(v_metadata, '''{}''::jsonb')
    ) using p_at, v_ref ->> 'type', v_ref ->> 'source', p_row.entity;
end
$$;
comment on function syncline.record_references(syncline.entities, syncline.builds, jsonb, timestamptz) is
'Keeps syncline.external_refs in step with a swap, for an entity whose rows are records of a type elsewhere.';

create or replace function syncline.list_references(
    p_type text default null,
    p_source text default null,
    p_external_key text default null,
    p_ref_id uuid default null,
    p_unseen_for interval default null,
    p_limit bigint default null
) returns setof syncline.external_refs
language sql stable
as $$
    select *
    from syncline.external_refs
    where (p_type is null or type = p_type)
        and (p_source is null or source = p_source)
        and (p_external_key is null or external_key = p_external_key)
        and (p_ref_id is null or ref_id = p_ref_id)
        and (p_unseen_for is null or gone_at < clock_timestamp() - p_unseen_for)
    order by type, source, external_key
    limit p_limit
$$;
comment on function syncline.list_references(text, text, text, uuid, interval, bigint) is
'External references by type, source, key or id, or those whose record has been gone for so long.';

create or replace view syncline.reference_status as
select
    type,
    source,
    count(*) as known,
    count(*) filter (where gone_at is not null) as gone,
    count(*) filter (where gone_at < now() - interval '90 days') as gone_for_90_days
from syncline.external_refs
group by type, source;
comment on view syncline.reference_status is 'How many external references there are by type and source, and of how many the record is gone.';

create or replace function syncline.prune_references(p_unseen_for interval) returns bigint
language plpgsql
as $$
declare
    v_count bigint;
begin
    if p_unseen_for < interval '0' then
        raise exception using
            errcode = 'SY264', message = 'an age is not negative', hint = 'Give it as an interval: ''1 year''.';
    end if;
    delete from syncline.external_refs where gone_at < clock_timestamp() - p_unseen_for;
    get diagnostics v_count = row_count;
    return v_count;
end
$$;
comment on function syncline.prune_references(interval) is
'Forgets references whose record has been gone for so long; returns their number. An id stands for the same record for ever, so one that comes back gets the same.';
