-- Loads: from staged records to revisions, in one short transaction.

create or replace function syncline.open_stream(p_source text, p_stream text, p_key_fields text[])
returns syncline.streams
language plpgsql
as $$
declare
    v_stream syncline.streams;
begin
    if not pg_try_advisory_lock(syncline.lock_class('stream'), hashtext(p_source || '.' || p_stream)) then
        perform pg_advisory_lock(syncline.lock_class('stream'), hashtext(p_source || '.' || p_stream));
    end if;
    perform syncline.hold_run();
    select * into v_stream from syncline.streams where source = p_source and stream = p_stream;
    if not found then
        raise exception using
            errcode = 'SY201',
            message = format('there is no stream %s.%s in the database', p_source, p_stream),
            hint = 'Run `syncline migrate`.';
    end if;
    if v_stream.live_records > 0 and v_stream.key_fields is distinct from p_key_fields then
        raise exception using
            errcode = 'SY202',
            message = format(
                'the key of %s.%s was (%s) and is now (%s)',
                p_source, p_stream, array_to_string(v_stream.key_fields, ', '), array_to_string(p_key_fields, ', ')
            ),
            hint = 'Keys of loaded records cannot change: give the stream a new name, or put the old key back.';
    end if;
    return v_stream;
end
$$;
comment on function syncline.open_stream(text, text, text[]) is
'Takes the stream''s advisory lock for this session and returns what the stream remembers.';

create or replace function syncline.close_stream(p_source text, p_stream text) returns void
language sql
as $$ select pg_advisory_unlock(syncline.lock_class('stream'), hashtext(p_source || '.' || p_stream)) $$;
comment on function syncline.close_stream(text, text) is 'Gives the stream''s advisory lock back.';

create or replace function syncline.next_load() returns bigint
language sql
as $$ select nextval(pg_get_serial_sequence('syncline.loads', 'load_id')) $$;
comment on function syncline.next_load() is
'A new load number. Taken under the stream''s lock, so numbers rise in commit order within a stream.';

create or replace function syncline.begin_staging(p_source text, p_stream text) returns void
language plpgsql
as $$
begin
    perform syncline.hold_run();
    execute format('truncate %I.%I', 'raw_' || p_source, p_stream || '_staged');
    update syncline.streams set unfinished = null where source = p_source and stream = p_stream and unfinished is not null;
end
$$;
comment on function syncline.begin_staging(text, text) is
'Empties the staged table of a stream, and forgets a fetch that was cut off.';

create or replace function syncline.save_fetch(p_source text, p_stream text, p_fetch jsonb) returns void
language plpgsql
as $$
begin
    perform syncline.hold_run();
    update syncline.streams set unfinished = p_fetch where source = p_source and stream = p_stream;
end
$$;
comment on function syncline.save_fetch(text, text, jsonb) is
'Saves where a fetch goes on should it be cut off, in the transaction of the records staged so far.';

create or replace function syncline.reserve_request(p_budget text, p_requests integer, p_seconds double precision)
returns double precision
language plpgsql
as $$
declare
    v_sent timestamptz[];
    v_at timestamptz;
begin
    insert into syncline.request_budgets (budget) values (p_budget) on conflict do nothing;
    select sent into v_sent from syncline.request_budgets where budget = p_budget for update;
    -- The p_requests-th last one must be out of the window before the next may go.
    v_at := greatest(
        clock_timestamp(),
        v_sent[cardinality(v_sent) - p_requests + 1] + make_interval(secs => p_seconds)
    );
    update syncline.request_budgets set sent = (v_sent || v_at)[greatest(cardinality(v_sent) + 2 - p_requests, 1):]
    where budget = p_budget;
    return greatest(extract(epoch from v_at - clock_timestamp()), 0);
end
$$;
comment on function syncline.reserve_request(text, integer, double precision) is
'Takes one request out of a budget of so many in so many seconds, in any window, that all workers share; returns the seconds to wait before it is sent.';

create or replace function syncline.begin_first_load(p_source text, p_stream text) returns bigint
language plpgsql
as $$
declare
    v_schema text := 'raw_' || p_source;
    v_table text := p_stream || '_json';
begin
    perform syncline.hold_run();
    execute format('truncate %I.%I', v_schema, v_table);
    execute format(
        'drop index if exists %I.%I, %I.%I, %I.%I',
        v_schema, v_table || '_live', v_schema, v_table || '_first', v_schema, v_table || '_gone'
    );
    return syncline.next_load();
end
$$;
comment on function syncline.begin_first_load(text, text) is
'Readies an empty stream for records that are copied straight in; returns the load''s number.';

create or replace function syncline.finish_first_load(p_load_id bigint, p_facts jsonb) returns syncline.loads
language plpgsql
as $$
declare
    v_source text := p_facts ->> 'source';
    v_stream text := p_facts ->> 'stream';
    v_table text := format('%I.%I', 'raw_' || v_source, v_stream || '_json');
    v_duplicates bigint := 0;
    v_live bigint;
begin
    perform set_config('maintenance_work_mem', '256MB', true);
    begin
        perform syncline.index_stream(v_source, v_stream);
    exception when unique_violation then
        -- Only now is it known that there are duplicates: the last of each key stays.
        v_duplicates := syncline.drop_duplicates(v_table, p_load_id, v_source, v_stream);
        perform syncline.index_stream(v_source, v_stream);
    end;
    execute format('analyze %s', v_table);
    v_live := (p_facts ->> 'records_staged')::bigint - v_duplicates;
    return syncline.save_load(
        p_load_id,
        p_facts || jsonb_build_object(
            'records_new', v_live, 'records_changed', 0, 'records_gone', 0, 'live_records', v_live,
            'records_rejected', (p_facts ->> 'records_rejected')::bigint + v_duplicates
        )
    );
end
$$;
comment on function syncline.finish_first_load(bigint, jsonb) is
'Indexes what the first load copied in, drops duplicates (the last wins) and saves the load.';

create or replace function syncline.drop_duplicates(p_table text, p_load_id bigint, p_source text, p_stream text)
returns bigint
language plpgsql
as $$
declare
    v_count bigint;
begin
    execute format(
        'with last_of_each as (
            select _key, max(_ordinal) as _ordinal from %1$s group by _key having count(*) > 1
        ),
        dropped as (
            delete from %1$s as record
            using last_of_each
            where record._key = last_of_each._key and record._ordinal < last_of_each._ordinal
            returning record._key, record._ordinal
        ),
        noted as (
            insert into syncline.row_errors (run_id, load_id, source, stream, _key, row_number, message, severity)
            select syncline.session_run(), $1, $2, $3, _key, _ordinal, ''duplicate key: a later record of this load wins'', ''warning''
            from dropped
            order by _ordinal
            limit 10000
        )
        select count(*) from dropped',
        p_table
    )
    into v_count
    using p_load_id, p_source, p_stream;
    return v_count;
end
$$;
comment on function syncline.drop_duplicates(text, bigint, text, text) is
'Leaves the last record of each key in a table of one load, with a row error for each other, 10,000 at most; returns their number.';

create or replace function syncline.compare_load(p_facts jsonb) returns table (_key text, _ordinal bigint, _hash uuid)
language plpgsql
as $$
declare
    v_source text := p_facts ->> 'source';
    v_stream text := p_facts ->> 'stream';
    v_live text := format('%I.%I', 'raw_' || v_source, v_stream || '_json');
    v_staged text := format('%I.%I', 'raw_' || v_source, v_stream || '_staged');
    v_is_append boolean := (p_facts ->> 'is_append')::boolean;
    v_is_whole boolean := (p_facts ->> 'is_closing')::boolean and not v_is_append and not (p_facts ->> 'has_unseen')::boolean;
    v_before bigint;
    v_count bigint;
begin
    perform syncline.hold_run();
    perform set_config('work_mem', '64MB', true), set_config('random_page_cost', '1.1', true);
    select live_records into v_before from syncline.streams where source = v_source and stream = v_stream;
    if p_facts ->> 'kind' = 'full' and (p_facts ->> 'records_read')::bigint = 0 and v_before > 0
        and not (p_facts ->> 'allow_mass_delete')::boolean then
        raise exception using
            errcode = 'SY301',
            message = format('%s.%s came back empty, where there were %s records', v_source, v_stream, v_before),
            hint = 'Nothing was changed. If the stream is empty indeed, run again with --allow-mass-delete.';
    end if;
    execute format('select count(*) from %s', v_staged) into v_count;
    if v_count <> (p_facts ->> 'records_staged')::bigint then
        raise exception using
            errcode = 'SY103',
            message = format('%s.%s: %s records were staged and %s are there', v_source, v_stream, p_facts ->> 'records_staged', v_count),
            hint = 'The database was restarted in the middle of the load: run again.';
    end if;
    if v_is_append then
        execute format('update %s set _key = $1 || ''-'' || _ordinal', v_staged) using p_facts ->> 'load_id';
    end if;
    execute format('analyze %s', v_staged);
    perform syncline.drop_duplicates(v_staged, (p_facts ->> 'load_id')::bigint, v_source, v_stream);
    -- Where staged and live disagree: _ordinal of what is new, _tid of what it takes the place of.
    execute format(
        'create temporary table difference on commit drop as
        select staged._ordinal, staged._key, staged._hash is null as is_tombstone, live.ctid as _tid, live._hash
        from %s as staged
        %s join (select ctid, _key, _hash from %s where _gone_load is null) as live on live._key = staged._key
        where staged._hash is distinct from live._hash',
        v_staged, case when v_is_whole then 'full' else 'left' end, v_live
    );
    if (p_facts ->> 'has_unseen')::boolean then
        return query
        select d._key, d._ordinal, d._hash
        from difference as d
        where d._tid is not null and not exists (select 1 from unseen where unseen._tid = d._tid);
        if (p_facts ->> 'is_closing')::boolean then
            insert into difference (_tid)
            select unseen._tid
            from unseen
            where not exists (select 1 from difference as d where d._tid = unseen._tid);
        end if;
    end if;
end
$$;
comment on function syncline.compare_load(jsonb) is
'Compares what is staged with what is live, for merge_load in the same transaction; raises SY301 for an empty full load. Returns staged records whose live revision came in the same load too: duplicates that the loader has to settle.';

create or replace function syncline.merge_load(p_facts jsonb, p_kept_keys text[], p_overruled_keys text[]) returns syncline.loads
language plpgsql
as $$
declare
    v_source text := p_facts ->> 'source';
    v_stream text := p_facts ->> 'stream';
    v_live text := format('%I.%I', 'raw_' || v_source, v_stream || '_json');
    v_staged text := format('%I.%I', 'raw_' || v_source, v_stream || '_staged');
    v_is_full boolean := p_facts ->> 'kind' = 'full';
    v_load_id bigint := p_facts ->> 'load_id';
    v_before bigint;
    v_count bigint;
    v_duplicates bigint;
    v_new bigint;
    v_changed bigint;
    v_gone bigint;
begin
    select live_records into v_before from syncline.streams where source = v_source and stream = v_stream;
    execute format('select $1 - count(*) from %s', v_staged) into v_duplicates using (p_facts ->> 'records_staged')::bigint;
    delete from difference where _key = any(p_overruled_keys);
    if cardinality(p_kept_keys) > 0 then
        execute format(
            'delete from difference as d using %s as live
            where live.ctid = d._tid and d._ordinal is null and live._key = any($1)', v_live
        ) using p_kept_keys;
    end if;
    select
        count(*) filter (where _tid is null and not is_tombstone),
        count(*) filter (where _tid is not null and not is_tombstone),
        count(*) filter (where _tid is not null and coalesce(is_tombstone, true))
    into v_new, v_changed, v_gone
    from difference;
    if v_is_full and v_gone > 10 and v_gone > v_before * (p_facts ->> 'max_delete_ratio')::numeric
        and not (p_facts ->> 'allow_mass_delete')::boolean then
        raise exception using
            errcode = 'SY301',
            message = format('%s.%s lacks %s of its %s records', v_source, v_stream, v_gone, v_before),
            hint = format(
                'That is more than max_delete_ratio (%s) allows; nothing was changed. If they are gone indeed, run again with --allow-mass-delete.',
                p_facts ->> 'max_delete_ratio'
            );
    end if;
    execute format(
        'update %s as live set _gone_load = $1 from difference as d where live.ctid = d._tid and live._gone_load is null', v_live
    ) using v_load_id;
    get diagnostics v_count = row_count;
    if v_count <> v_changed + v_gone then
        raise exception using
            errcode = 'SY103',
            message = format('%s.%s: the table was rewritten in the middle of the load', v_source, v_stream),
            hint = 'Run again.';
    end if;
    execute format(
        'insert into %s (_key, _hash, _first_load, _ordinal, payload)
        select staged._key, staged._hash, $1, staged._ordinal, staged.payload
        from %s as staged
        where staged._ordinal in (select d._ordinal from difference as d where not d.is_tombstone)',
        v_live, v_staged
    ) using v_load_id;
    if v_is_full then
        update syncline.row_errors set closed_at = clock_timestamp()
        where source = v_source and stream = v_stream and closed_at is null and load_id < v_load_id;
    else
        execute format(
            'update syncline.row_errors as old set closed_at = clock_timestamp()
            from %s as staged
            where old.source = $1 and old.stream = $2 and old._key = staged._key
                and old.closed_at is null and old.load_id < $3',
            v_staged
        ) using v_source, v_stream, v_load_id;
    end if;
    execute format('truncate %s', v_staged);
    return syncline.save_load(
        v_load_id,
        p_facts || jsonb_build_object(
            'records_new', v_new, 'records_changed', v_changed, 'records_gone', v_gone,
            'live_records', v_before + v_new - v_gone,
            'records_rejected', (p_facts ->> 'records_rejected')::bigint + v_duplicates
        )
    );
end
$$;
comment on function syncline.merge_load(jsonb, text[], text[]) is
'Closes and opens revisions by what compare_load found, in the same transaction; raises SY301 where a full load lacks too much. `p_kept_keys` are not closed though they did not come; `p_overruled_keys` stay as they are live.';

create or replace function syncline.save_unchanged(p_facts jsonb) returns syncline.loads
language plpgsql
as $$
declare
    v_live bigint;
begin
    perform syncline.hold_run();
    select live_records into v_live
    from syncline.streams
    where source = p_facts ->> 'source' and stream = p_facts ->> 'stream';
    return syncline.save_load(
        (p_facts ->> 'load_id')::bigint,
        p_facts || jsonb_build_object('records_new', 0, 'records_changed', 0, 'records_gone', 0, 'live_records', v_live)
    );
end
$$;
comment on function syncline.save_unchanged(jsonb) is
'Saves a load whose source has nothing else than at the load before.';

create or replace function syncline.save_load(p_load_id bigint, p_facts jsonb) returns syncline.loads
language plpgsql
as $$
declare
    v_load syncline.loads;
begin
    insert into syncline.loads (
        load_id, source, stream, run_id, kind, is_trial, is_closing, records_read, records_new, records_changed,
        records_gone, records_rejected, live_records, started_at
    ) overriding system value
    select
        p_load_id, f.source, f.stream, syncline.session_run(), f.kind, f.is_trial, f.is_closing, f.records_read,
        f.records_new, f.records_changed, f.records_gone, f.records_rejected, f.live_records, f.started_at
    from jsonb_to_record(p_facts) as f (
        source text, stream text, kind text, is_trial boolean, is_closing boolean, records_read bigint,
        records_new bigint, records_changed bigint, records_gone bigint, records_rejected bigint,
        live_records bigint, started_at timestamptz
    )
    returning * into v_load;
    update syncline.streams set
        last_load = p_load_id,
        -- The first increment of a stream has all there is.
        last_full_at = case
            when v_load.is_trial then last_full_at
            when v_load.kind = 'full' then v_load.started_at
            when last_load is null and nullif(p_facts -> 'cursor', 'null') is not null then v_load.started_at
            else last_full_at
        end,
        live_records = v_load.live_records,
        key_fields = array(select jsonb_array_elements_text(p_facts -> 'key_fields')),
        known_fields = coalesce(
            (select array_agg(field) from jsonb_array_elements_text(nullif(p_facts -> 'known_fields', 'null')) as field), known_fields
        ),
        cursor = case when v_load.is_trial then cursor else coalesce(nullif(p_facts -> 'cursor', 'null'), cursor) end,
        unfinished = null,
        is_mixed = v_load.is_trial or (p_facts ->> 'is_push')::boolean or (is_mixed and v_load.kind = 'increment')
    where source = v_load.source and stream = v_load.stream;
    perform syncline.save_row_errors(v_load, p_facts);
    return v_load;
end
$$;
comment on function syncline.save_load(bigint, jsonb) is
'Saves a load''s row, its row errors, and what the stream remembers, in the caller''s transaction.';
