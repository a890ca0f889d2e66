-- Ordinary models downstream of entities: which are behind what is published.

create or replace function syncline.models_behind(p_models jsonb) returns table (model text, stamp text)
language sql stable
as $$
    with stamped as (
        select
            m.model,
            to_regclass(format('%I.%I', m.schema, m.alias)) is null as is_missing,
            -- A view follows every publish by itself; it is behind where its code or the columns it reads changed.
            md5(m.fingerprint || string_agg(
                e.entity || case when m.is_view then current.columns::text else current.build_id::text end,
                ';' order by e.entity
            )) as stamp,
            count(e.entity) = count(*) as is_complete
        from jsonb_to_recordset(p_models)
            as m (model text, schema text, alias text, entities text[], is_view boolean, fingerprint text)
        cross join lateral unnest(m.entities) as wanted
        left join syncline.entities as e on wanted = e.entity
        left join syncline.builds as current on e.current_build = current.build_id
        group by m.model, m.schema, m.alias, m.fingerprint
    )

    select s.model, s.stamp
    from stamped as s
    left join syncline.downstream as known on s.model = known.model
    where s.is_complete and s.stamp is not null and (s.is_missing or s.stamp is distinct from known.stamp)
    order by s.model
$$;
comment on function syncline.models_behind(jsonb) is
'The ordinary models (model, schema, alias, entities, is_view, fingerprint) that are not there or were built from something else than what is published, with what they would be built from now.';

create or replace function syncline.save_models(p_stamps jsonb) returns void
language plpgsql
as $$
begin
    perform syncline.hold_run();
    insert into syncline.downstream (model, stamp)
    select s.key, s.value from jsonb_each_text(p_stamps) as s
    on conflict (model) do update set stamp = excluded.stamp, built_at = clock_timestamp();
end
$$;
comment on function syncline.save_models(jsonb) is 'Notes what models were built from: model to stamp.';
