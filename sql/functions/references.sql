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

create or replace function syncline.check_external_ref(p_spec jsonb, p_columns jsonb) returns void
language plpgsql immutable
as $$
declare
    v_ref jsonb := nullif(p_spec -> 'external_ref', 'null');
    v_missing text;
begin
    if v_ref is null then
        return;
    end if;
    select string_agg(format('%s, which its external_ref names as %s', named.name, named.part), '; ') into v_missing
    from (
        select v_ref ->> 'key' as name, 'key' as part
        union all
        select name, 'metadata' from jsonb_array_elements_text(v_ref -> 'metadata') as name
    ) as named
    where not p_columns @> jsonb_build_array(jsonb_build_object('name', named.name));
    if v_missing is not null then
        raise exception using
            errcode = 'SY215',
            message = format('%s has no column %s', p_spec ->> 'entity', v_missing),
            hint = 'Name columns of the model in key and metadata of external_ref.';
    end if;
end
$$;
comment on function syncline.check_external_ref(jsonb, jsonb) is
'Raises SY215 where external_ref names a column that the model does not have.';

create or replace function syncline.record_references(
    p_row syncline.entities, p_build syncline.builds, p_spec jsonb, p_at timestamptz
) returns void
language plpgsql
as $$
declare
    v_ref jsonb := nullif(p_spec -> 'external_ref', 'null');
    v_old_ref jsonb := (
        select nullif(m.spec -> 'external_ref', 'null')
        from syncline.builds as b
        inner join syncline.models as m on b.signature = m.signature
        where b.build_id = p_row.current_build
    );
begin
    perform syncline.note_swap(p_row.entity, p_build.build_id);
    if v_ref is not null or v_old_ref is not null then
        perform syncline.write_references(
            p_row, p_build, v_ref,
            p_row.current_version is null or p_row.is_delta_all or v_ref is distinct from v_old_ref, p_at
        );
    end if;
end
$$;
comment on function syncline.record_references(syncline.entities, syncline.builds, jsonb, timestamptz) is
'Keeps syncline.external_refs in step with a swap, for an entity whose rows are records of a type elsewhere, or were.';

create or replace function syncline.write_references(
    p_row syncline.entities, p_build syncline.builds, p_ref jsonb, p_is_all boolean, p_at timestamptz
) returns void
language plpgsql
as $$
declare
    v_table text := format('%I.%I', p_row.schema_name, p_row.entity || '_v' || p_build.version);
    v_is_gone boolean;
begin
    v_is_gone := case when p_is_all
        then syncline.end_other_references(p_row.entity, v_table, p_ref, p_at)
        else syncline.end_lost_references(p_row, v_table, p_ref, p_at)
    end;
    if v_is_gone then
        perform syncline.hand_over_references(p_row.entity, p_at);
    end if;
    if p_ref is null then
        return;
    end if;
    execute format(
        'insert into syncline.external_refs as r (type, source, external_key, ref_id, entity, metadata, first_seen_at)
        select distinct on (t.%1$I::text) $2, $3, t.%1$I::text, syncline.external_id($2, $3, t.%1$I::text), $4, %3$s, $1
        from %2$s as t
        where t.%1$I is not null %4$s
        order by t.%1$I::text, t._key
        on conflict (type, source, external_key) do update set
            entity = excluded.entity, metadata = excluded.metadata, gone_at = null
        where (r.entity, r.metadata) is distinct from (excluded.entity, excluded.metadata) or r.gone_at is not null',
        p_ref ->> 'key', v_table, syncline.reference_metadata(p_ref),
        case when not p_is_all
            then format('and t._key in (select delta._key from %I.%I as delta)', p_row.schema_name, p_row.entity || '_delta')
        end
    ) using p_at, p_ref ->> 'type', p_ref ->> 'source', p_row.entity;
    -- Autovacuum may be a while, and the next publish reads them. Who does not own the table would get a warning instead.
    if p_is_all and pg_has_role(
        (select relowner from pg_catalog.pg_class where oid = 'syncline.external_refs'::regclass), 'usage'
    ) then
        analyze syncline.external_refs;
    end if;
end
$$;
comment on function syncline.write_references(syncline.entities, syncline.builds, jsonb, boolean, timestamptz) is
'Writes the references of an entity''s rows, those in delta or all, and marks those as gone whose record no entity has any more.';

create or replace function syncline.end_other_references(p_entity text, p_table text, p_ref jsonb, p_at timestamptz) returns boolean
language plpgsql
as $$
declare
    v_count bigint;
begin
    execute format(
        'update syncline.external_refs as r set gone_at = $1
        where r.entity = $4 and r.gone_at is null and %s',
        case when p_ref is null then 'true' else format(
            '(r.type <> $2 or r.source <> $3 or not exists (select 1 from %s as t where t.%I::text = r.external_key))',
            p_table, p_ref ->> 'key'
        ) end
    ) using p_at, p_ref ->> 'type', p_ref ->> 'source', p_entity;
    get diagnostics v_count = row_count;
    return v_count > 0;
end
$$;
comment on function syncline.end_other_references(text, text, jsonb, timestamptz) is
'Marks all references of an entity as gone that a version has no row for, those of another type or source too; returns whether there were any.';

create or replace function syncline.end_lost_references(p_row syncline.entities, p_table text, p_ref jsonb, p_at timestamptz) returns boolean
language plpgsql
as $$
declare
    v_key text := p_ref ->> 'key';
    v_count bigint;
begin
    -- What a dropped entity left falls to whoever has the record. The array and the collation let the index of the
    -- references be used: `_key` has another collation.
    execute format(
        'with lost (external_key) as (
            select distinct old.%1$I::text collate "default"
            from %2$s as old
            where old._key in (select delta._key from %4$I.%5$I as delta)
                and not exists (select 1 from %3$s as t where t._key = old._key and t.%1$I::text = old.%1$I::text)
        )
        update syncline.external_refs as r set gone_at = $1, entity = $4
        where r.type = $2 and r.source = $3 and r.gone_at is null
            and r.external_key = any(array(
                select lost.external_key
                from lost
                where not exists (select 1 from %3$s as t where t.%1$I::text = lost.external_key)
            ))
            and (r.entity = $4 or not exists (select 1 from syncline.entities as e where e.entity = r.entity))',
        v_key, format('%I.%I', p_row.schema_name, p_row.entity || '_v' || p_row.current_version), p_table,
        p_row.schema_name, p_row.entity || '_delta'
    ) using p_at, p_ref ->> 'type', p_ref ->> 'source', p_row.entity;
    get diagnostics v_count = row_count;
    return v_count > 0;
end
$$;
comment on function syncline.end_lost_references(syncline.entities, text, jsonb, timestamptz) is
'Marks references as gone whose row a swap takes away, by the keys in delta; returns whether there were any.';

create or replace function syncline.hand_over_references(p_entity text, p_at timestamptz) returns void
language plpgsql
as $$
declare
    v_other record;
begin
    for v_other in
        select
            e.entity, m.spec -> 'external_ref' as ref, format('%I.%I', e.schema_name, e.entity || '_v' || b.version) as table_name
        from syncline.entities as e
        inner join syncline.builds as b on b.build_id = coalesce(syncline.noted_swap(e.entity), e.current_build)
        inner join syncline.models as m on b.signature = m.signature
        where e.entity <> p_entity and jsonb_typeof(m.spec -> 'external_ref') = 'object'
        order by e.entity
    loop
        execute format(
            'update syncline.external_refs as r set entity = $1, metadata = kept.metadata, gone_at = null
            from (
                select distinct on (t.%1$I::text) t.%1$I::text collate "default" as external_key, %3$s as metadata
                from %2$s as t
                where t.%1$I::text in (
                    select ended.external_key
                    from syncline.external_refs as ended
                    where ended.entity = $2 and ended.gone_at = $3 and ended.type = $4 and ended.source = $5
                )
                order by t.%1$I::text, t._key
            ) as kept
            where r.type = $4 and r.source = $5 and r.external_key = kept.external_key and r.entity = $2 and r.gone_at = $3',
            v_other.ref ->> 'key', v_other.table_name, syncline.reference_metadata(v_other.ref)
        ) using v_other.entity, p_entity, p_at, v_other.ref ->> 'type', v_other.ref ->> 'source';
    end loop;
end
$$;
comment on function syncline.hand_over_references(text, timestamptz) is
'Gives references that an entity has just lost to another entity that has the record.';

create or replace function syncline.reference_metadata(p_ref jsonb) returns text
language sql immutable
as $$
    select coalesce('jsonb_build_object(' || string_agg(format('%L, t.%I', name, name), ', ') || ')', '''{}''::jsonb')
    from jsonb_array_elements_text(p_ref -> 'metadata') as name
$$;
comment on function syncline.reference_metadata(jsonb) is 'The SQL of what is kept with a reference, of a row of a table called t.';

create or replace function syncline.note_swap(p_entity text, p_build_id bigint) returns void
language sql
as $$
    select set_config(
        'syncline.swaps',
        (coalesce(nullif(current_setting('syncline.swaps', true), ''), '{}')::jsonb || jsonb_build_object(p_entity, p_build_id))::text,
        true
    )
$$;
comment on function syncline.note_swap(text, bigint) is
'Notes until the transaction ends which build an entity is about to show: entities that are swapped together look at each other.';

create or replace function syncline.noted_swap(p_entity text) returns bigint
language sql stable
as $$ select (nullif(current_setting('syncline.swaps', true), '')::jsonb ->> p_entity)::bigint $$;
comment on function syncline.noted_swap(text) is 'The build that an entity is about to show, where this transaction has noted one.';

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
