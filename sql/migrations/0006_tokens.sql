-- Who may call the API, and which signed messages came in before.

create table syncline.tokens (
    token_id bigint generated always as identity primary key,
    name text not null check (name ~ '^[[:alnum:]][[:alnum:]._@-]{0,62}$' and name <> 'SYNCLINE_SECRET_KEY'),
    digest bytea not null check (octet_length(digest) = 32),
    role text not null check (role in ('viewer', 'operator', 'admin')),
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null,
    expires_at timestamptz,
    revoked_at timestamptz,
    revoked_by text,
    last_used_at timestamptz,
    warned_at timestamptz
);
comment on table syncline.tokens is 'Tokens of the API. Of each only a digest is kept; live ones have names of their own.';
comment on column syncline.tokens.digest is 'SHA-256 of the secret, which is random, of 256 bits, and kept nowhere.';
comment on column syncline.tokens.last_used_at is 'Written at most once a minute.';
comment on column syncline.tokens.warned_at is 'When a log event last told that the token expires soon.';

create table syncline.messages (
    sender text not null check (sender in ('webhook', 'signature', 'qstash')),
    message_id text not null,
    source text not null,
    run_id bigint,
    received_at timestamptz not null default clock_timestamp(),
    primary key (sender, message_id, source)
);
comment on table syncline.messages is 'Signed messages that came in, each with the run that it asked for: a repeat starts nothing.';
create index messages_received_idx on syncline.messages (received_at);
