-- Tokens of the API, and signed messages that ask for a run once.

create or replace function syncline.is_expiring(p_expires_at timestamptz) returns boolean
language sql stable
as $$ select coalesce(p_expires_at < clock_timestamp() + interval '14 days', false) $$;
comment on function syncline.is_expiring(timestamptz) is 'Whether a token that ends then has at most 14 days left.';

create or replace function syncline.token_state(p_expires_at timestamptz, p_revoked_at timestamptz) returns text
language sql stable
as $$
    select case
        when p_revoked_at is not null then 'revoked'
        when p_expires_at <= clock_timestamp() then 'expired'
        else 'live'
    end
$$;
comment on function syncline.token_state(timestamptz, timestamptz) is 'live, expired or revoked.';

create or replace function syncline.check_may_change_tokens() returns void
language plpgsql
as $$
begin
    if not has_table_privilege('syncline.tokens', 'insert, update') then
        raise exception using
            errcode = 'SY321',
            message = format('the database user %s may not make or revoke tokens', current_user),
            hint = 'Do it as the user that owns the schema syncline.';
    end if;
    -- Two at once must not give one name twice.
    lock table syncline.tokens in share row exclusive mode;
end
$$;
comment on function syncline.check_may_change_tokens() is
'Raises SY321 where the user may not change tokens; else lets one at a time do so until its transaction ends.';

create or replace function syncline.live_token(p_name text) returns bigint
language plpgsql
as $$
declare
    v_token_id bigint;
begin
    select token_id into v_token_id
    from syncline.tokens
    where name = p_name and syncline.token_state(expires_at, revoked_at) = 'live';
    if not found then
        raise exception using
            errcode = 'SY225',
            message = format('there is no live token named %s', p_name),
            hint = '`syncline token list` shows all.';
    end if;
    return v_token_id;
end
$$;
comment on function syncline.live_token(text) is 'The number of the live token of this name; raises SY225 where there is none.';

create or replace function syncline.create_token(
    p_name text,
    p_digest bytea,
    p_role text,
    p_expires_in interval default null,
    p_replaces text default null,
    p_overlap interval default '0',
    p_created_by text default null
) returns table (token_id bigint, expires_at timestamptz, replaced_until timestamptz)
language plpgsql
-- The owner calls it, and others may create where its path would look.
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_replaced bigint;
begin
    perform syncline.check_may_change_tokens();
    if p_replaces is not null then
        v_replaced := syncline.live_token(p_replaces);
        update syncline.tokens as replaced
        set expires_at = least(replaced.expires_at, clock_timestamp() + p_overlap)
        where replaced.token_id = v_replaced
        returning replaced.expires_at into replaced_until;
    end if;
    if exists (
        select
        from syncline.tokens as other
        where other.name = p_name and syncline.token_state(other.expires_at, other.revoked_at) = 'live'
    ) then
        raise exception using
            errcode = 'SY322',
            message = format('a live token is named %s', p_name),
            hint = 'Take another name (with `--replace` too, unless `--overlap 0s`), or revoke that one first.';
    end if;
    insert into syncline.tokens (name, digest, role, created_by, expires_at)
    values (p_name, p_digest, p_role, coalesce(p_created_by, session_user), clock_timestamp() + p_expires_in)
    returning tokens.token_id, tokens.expires_at into token_id, expires_at;
    return next;
end
$$;
comment on function syncline.create_token(text, bytea, text, interval, text, interval, text) is
'Makes a token of which the caller knows the secret. The one it replaces ends after the overlap. Raises SY225 where that one is not live, SY321 where the user may not, SY322 where a live one has the name.';

create or replace function syncline.revoke_token(p_name text, p_revoked_by text default null) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_token_id bigint;
begin
    perform syncline.check_may_change_tokens();
    v_token_id := syncline.live_token(p_name);
    update syncline.tokens set revoked_at = clock_timestamp(), revoked_by = coalesce(p_revoked_by, session_user)
    where token_id = v_token_id;
    return v_token_id;
end
$$;
comment on function syncline.revoke_token(text, text) is
'Revokes the live token of this name, at once and for good. Raises SY225 where there is none.';

-- The API's database user has no right on the table: these read and write for it, and never show a digest.

create or replace function syncline.find_token(p_token_id bigint, p_challenge bytea)
returns table (
    name text, role text, proof bytea, state text, expires_at timestamptz, is_expiring boolean, is_touch_due boolean
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select
        found.name,
        found.role,
        sha256(found.digest || p_challenge) as proof,
        syncline.token_state(found.expires_at, found.revoked_at) as state,
        found.expires_at,
        syncline.is_expiring(found.expires_at) as is_expiring,
        coalesce(found.last_used_at < clock_timestamp() - interval '1 minute', true) as is_touch_due
    from syncline.tokens as found
    where found.token_id = p_token_id
$$;
comment on function syncline.find_token(bigint, bytea) is
'A token by its number. `proof` is SHA-256 of its digest and the caller''s challenge: who has the secret can tell the same, and the digest stays here.';

create or replace function syncline.touch_token(p_token_id bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_token syncline.tokens;
begin
    update syncline.tokens set last_used_at = clock_timestamp()
    where token_id = p_token_id and coalesce(last_used_at < clock_timestamp() - interval '1 minute', true);
    update syncline.tokens set warned_at = clock_timestamp()
    where token_id = p_token_id
        and syncline.is_expiring(expires_at)
        and coalesce(warned_at < clock_timestamp() - interval '1 day', true)
    returning * into v_token;
    if found then
        perform syncline.log(
            'warning', 'token_expiring', jsonb_build_object('token', v_token.name, 'expires_at', v_token.expires_at)
        );
    end if;
end
$$;
comment on function syncline.touch_token(bigint) is
'Notes that a token was used, at most once a minute, and logs once a day that it expires soon.';

create or replace function syncline.list_tokens()
returns table (
    token_id bigint,
    name text,
    role text,
    state text,
    created_at timestamptz,
    created_by text,
    expires_at timestamptz,
    last_used_at timestamptz,
    is_expiring boolean
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select
        listed.token_id,
        listed.name,
        listed.role,
        syncline.token_state(listed.expires_at, listed.revoked_at) as state,
        listed.created_at,
        listed.created_by,
        listed.expires_at,
        listed.last_used_at,
        syncline.token_state(listed.expires_at, listed.revoked_at) = 'live'
            and syncline.is_expiring(listed.expires_at) as is_expiring
    from syncline.tokens as listed
    order by listed.token_id
$$;
comment on function syncline.list_tokens() is 'All tokens, without what they are compared by.';

-- Where a reader may use the schema, they are still not for everybody.
revoke execute on function syncline.find_token(bigint, bytea) from public;
revoke execute on function syncline.touch_token(bigint) from public;
revoke execute on function syncline.list_tokens() from public;

create or replace function syncline.request_run_once(
    p_sender text,
    p_message_id text,
    p_source text,
    p_entities text[],
    p_options jsonb,
    p_trigger text,
    p_triggered_by text,
    p_request_id text
) returns table (run_id bigint, status text, is_repeat boolean)
language plpgsql
as $$
#variable_conflict use_column
begin
    insert into syncline.messages (sender, message_id, source)
    values (p_sender, p_message_id, p_source)
    on conflict do nothing;
    is_repeat := not found;
    if is_repeat then
        run_id := (
            select seen.run_id
            from syncline.messages as seen
            where seen.sender = p_sender and seen.message_id = p_message_id and seen.source = p_source
        );
    else
        run_id := syncline.request_run(
            array[p_source], p_entities, p_options, p_trigger, p_triggered_by, p_request_id
        );
        update syncline.messages set run_id = request_run_once.run_id
        where sender = p_sender and message_id = p_message_id and source = p_source;
        perform syncline.prune_messages();
    end if;
    status := (select run.status from syncline.runs as run where run.run_id = request_run_once.run_id);
    return next;
end
$$;
comment on function syncline.request_run_once(text, text, text, text[], jsonb, text, text, text) is
'Requests a run for a signed message, in one transaction with noting the message: a repeat for the same source gets the same run and starts nothing.';

create or replace function syncline.prune_messages(p_age interval default '7 days') returns bigint
language sql
as $$
    with pruned as (
        delete from syncline.messages
        where ctid = any(
            array(
                select old.ctid
                from syncline.messages as old
                where old.received_at < clock_timestamp() - p_age
                limit 1000
                for update skip locked
            )
        )
        returning 1
    )

    select count(*) from pruned
$$;
comment on function syncline.prune_messages(interval) is
'Forgets up to 1,000 messages older than this, which signatures are too old for long since; returns how many.';
