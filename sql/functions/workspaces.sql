-- A build's workspace: a schema syncline_<entity>, and one for each stream that the model reads, which exist only
-- inside the build's transaction.

create or replace function syncline.streams_read(p_entity text, p_streams jsonb)
returns table (label text, relation text, records text, substitute_schema text, substitute text)
language sql stable
as $$
    select
        s.source || '.' || s.stream,
        s.relation,
        format('%I.%I', 'raw_' || s.source, s.stream || '_json'),
        -- Two streams of one name need two schemas.
        format('syncline%s_%s', s.place, p_entity),
        format('%I.%I', format('syncline%s_%s', s.place, p_entity), s.stream)
    from rows from (jsonb_to_recordset(p_streams) as (source text, stream text, relation text))
        with ordinality as s (source, stream, relation, place)
$$;
comment on function syncline.streams_read(text, jsonb) is
'The streams that a model reads: label, the name in its compiled SQL, the table of records, and the relation that stands for the stream in the workspace.';

create or replace function syncline.open_workspace(p_entity text, p_sql text, p_streams jsonb) returns text
language plpgsql
as $$
declare
    v_stream record;
    v_sql text := p_sql;
begin
    execute format('create schema %I', 'syncline_' || p_entity);
    for v_stream in select * from syncline.streams_read(p_entity, p_streams) loop
        execute format('create schema %I', v_stream.substitute_schema);
        if strpos(v_sql, v_stream.relation) = 0 then
            raise exception using
                errcode = 'SY206',
                message = format('the SQL of %s does not read %s where it should', p_entity, v_stream.relation),
                hint = 'Write source() in the model or in an ephemeral parent, and nothing else, to read a stream.';
        end if;
        v_sql := replace(v_sql, v_stream.relation, v_stream.substitute);
    end loop;
    return v_sql;
end
$$;
comment on function syncline.open_workspace(text, text, jsonb) is
'Makes the schemas a build works in and returns the model''s SQL with each stream replaced by its substitute there.';

create or replace function syncline.close_workspace(p_entity text, p_streams jsonb) returns void
language plpgsql
as $$
declare
    v_schema text;
begin
    -- These schemas were made in this transaction: nothing outside can depend on them.
    execute format('drop schema %I cascade', 'syncline_' || p_entity);
    for v_schema in select substitute_schema from syncline.streams_read(p_entity, p_streams) loop
        execute format('drop schema %I cascade', v_schema);
    end loop;
end
$$;
comment on function syncline.close_workspace(text, jsonb) is 'Drops the schemas a build worked in.';

create or replace function syncline.open_substitutes(p_entity text, p_streams jsonb, p_loads jsonb, p_is_all boolean) returns void
language plpgsql
as $$
declare
    v_stream record;
    v_load bigint;
    v_revisions text;
begin
    for v_stream in select * from syncline.streams_read(p_entity, p_streams) loop
        v_load := p_loads ->> v_stream.label;
        if p_is_all then
            v_revisions := format(
                'select * from %s where _first_load <= %s and (_gone_load is null or _gone_load > %s)',
                v_stream.records, v_load, v_load
            );
        else
            -- Two branches, so that each has an index.
            v_revisions := format(
                'select live.* from %I.changed inner join %s as live on live._key = changed._key
                where live._gone_load is null and live._first_load <= %s
                union all
                select gone.* from %I.changed inner join %s as gone on gone._key = changed._key
                where gone._gone_load > %s and gone._first_load <= %s',
                'syncline_' || p_entity, v_stream.records, v_load, 'syncline_' || p_entity, v_stream.records, v_load, v_load
            );
        end if;
        execute format(
            'create view %s as
            select _key, unnest(array[payload::jsonb]) as payload, _ordinal from (%s) as revision',
            v_stream.substitute, v_revisions
        );
    end loop;
end
$$;
comment on function syncline.open_substitutes(text, jsonb, jsonb, boolean) is
'Makes the views that stand for the streams: the wanted records as of the loads, each parsed once.';

create or replace function syncline.open_stubs(p_entity text, p_streams jsonb) returns void
language plpgsql
as $$
declare
    v_stream record;
begin
    for v_stream in select * from syncline.streams_read(p_entity, p_streams) loop
        execute format(
            'create table %s (_key text collate "C", payload jsonb, _ordinal bigint)', v_stream.substitute
        );
    end loop;
end
$$;
comment on function syncline.open_stubs(text, jsonb) is
'Lets empty tables stand for the streams, so that a plan shows the model''s own shape.';

create or replace function syncline.close_stubs(p_entity text, p_streams jsonb) returns void
language plpgsql
as $$
declare
    v_stream record;
begin
    for v_stream in select * from syncline.streams_read(p_entity, p_streams) loop
        execute format('drop table %s', v_stream.substitute);
    end loop;
end
$$;
comment on function syncline.close_stubs(text, jsonb) is 'Drops the tables that stood for the streams.';
