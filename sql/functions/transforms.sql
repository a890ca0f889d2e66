-- What the transforms of typed() compile to: the text of a source in, the text that the type's input takes on every
-- server out. None fails, and none looks at a setting or at the clock. A value that a transform does not take becomes
-- the one character SUB (26), which no type but text takes; a null stays one.
--
-- The planner puts these functions in the place of their calls: each is one expression, not strict where it is no
-- strict expression, and calls only what is immutable. A text that changes needs a higher syncline.typing_version().

create or replace function syncline.refused(p_value text) returns text
language sql immutable parallel safe
as $$ select case when p_value is not null then chr(26) end $$;
comment on function syncline.refused(text) is 'The text that stands for a value that a transform does not take; null for null.';

create or replace function syncline.is_refused(p_value text) returns boolean
language sql immutable parallel safe
as $$ select p_value = chr(26) $$;
comment on function syncline.is_refused(text) is 'Whether a transform has not taken its value; null for null.';

create or replace function syncline.unless_refused(p_value text) returns text
language sql immutable parallel safe
as $$ select nullif(p_value, chr(26)) $$;
comment on function syncline.unless_refused(text) is 'The text that a transform gave; null where it did not take its value.';

-- Blanks: those of ASCII, and those that a spreadsheet puts between digits and before a currency.
create or replace function syncline.trim_blanks(p_value text) returns text
language sql immutable parallel safe
as $$ select btrim(p_value, E' \t\n\x0b\f\r\u00a0\u2007\u2009\u202f') $$;
comment on function syncline.trim_blanks(text) is 'The text without blanks around it, no-break blanks included.';

create or replace function syncline.collapse_blanks(p_value text) returns text
language sql immutable parallel safe
as $$ select regexp_replace(p_value, '[ \t\n\v\f\r\u00a0\u2007\u2009\u202f]+', ' ', 'g') $$;
comment on function syncline.collapse_blanks(text) is 'The text with one blank in the place of several.';

do $do$
declare
    -- Those that follow Unicode in full, wherever they are; what the database sorts by has no say.
    v_collation text := (
        select format('pg_catalog.%I', collname)
        from pg_catalog.pg_collation
        where collname in ('pg_unicode_fast', 'und-x-icu', 'pg_c_utf8')
            and collencoding in (-1, (select encoding from pg_catalog.pg_database where datname = current_database()))
        order by array_position(array['pg_unicode_fast', 'und-x-icu', 'pg_c_utf8'], collname::text)
        limit 1
    );
    v_name text;
begin
    foreach v_name in array array['lower', 'upper'] loop
        execute format(
            'create or replace function syncline.%1$s_text(p_value text) returns text
            language sql immutable parallel safe
            as $$ select pg_catalog.%1$s(p_value collate %2$s) collate pg_catalog."default" $$',
            v_name, coalesce(v_collation, 'pg_catalog."default"')
        );
    end loop;
end
$do$;
comment on function syncline.lower_text(text) is 'The text in lower case by the rules of Unicode, whatever the database''s locale.';
comment on function syncline.upper_text(text) is 'The text in upper case by the rules of Unicode, whatever the database''s locale.';

create or replace function syncline.title_text(p_value text) returns text
language sql immutable parallel safe
as $$
    select
        case when p_value = '' then '' else (
            select string_agg(syncline.upper_text(left(word[1], 1)) || syncline.lower_text(substr(word[1], 2)), '' order by place)
            from regexp_matches(p_value, '[^ \t\n\v\f\r\u00a0\u2007\u2009\u202f-]+|[ \t\n\v\f\r\u00a0\u2007\u2009\u202f-]+', 'g')
                with ordinality as words (word, place)
        ) end
$$;
comment on function syncline.title_text(text) is
'The text with the first letter of each word in upper case and the others in lower case; words end at blanks and hyphens.';

-- numbers

create or replace function syncline.number_pattern(p_decimal text, p_thousands text) returns text
language sql immutable parallel safe
as $$
    select
        '(?:[0-9]+'
        || case p_thousands
            when '' then ''
            else '|[0-9]{1,3}(?:'
                || case p_thousands
                    when ' ' then '[ \u00a0\u2007\u2009\u202f]'
                    when '''' then '[''\u2019]'
                    else '[' || p_thousands || ']'
                end || '[0-9]{3})+'
        end
        || ')(?:[' || p_decimal || '][0-9]+)?|[' || p_decimal || '][0-9]+'
$$;
comment on function syncline.number_pattern(text, text) is
'The pattern of a number without a sign: digits, in whole groups of three or in none, and a fraction.';

create or replace function syncline.plain_number(p_value text, p_decimal text) returns text
language sql immutable parallel safe
as $$ select translate(p_value, p_decimal || E'\u2212+.,''%() \u00a0\u2007\u2009\u202f\u2019', '.-') $$;
comment on function syncline.plain_number(text, text) is
'The number that a pattern has matched, as Postgres writes it: a decimal point, the minus of ASCII, nothing between digits.';

-- A pattern without groups is five times as quick as one with them; so what it matches is taken apart by other means.
create or replace function syncline.number_text(p_value text, p_decimal text, p_thousands text) returns text
language sql immutable parallel safe
as $$
    select
        case
            when syncline.trim_blanks(p_value)
                ~ ('^[-+\u2212]?[ \u00a0\u2007\u2009\u202f]*(?:' || syncline.number_pattern(p_decimal, p_thousands) || ')$')
                then syncline.plain_number(syncline.trim_blanks(p_value), p_decimal)
            when syncline.trim_blanks(p_value) ~ ('^(?:' || syncline.number_pattern(p_decimal, p_thousands) || ')[-\u2212]$')
                then '-' || syncline.plain_number(left(syncline.trim_blanks(p_value), -1), p_decimal)
            else syncline.refused(p_value)
        end
$$;
comment on function syncline.number_text(text, text, text) is
'A number with this decimal mark and this mark between thousands, as Postgres writes it.';

create or replace function syncline.percentage_text(p_value text, p_decimal text, p_thousands text, p_ending text) returns text
language sql immutable parallel safe
as $$
    select
        case
            when syncline.trim_blanks(p_value)
                ~ (
                    '^[-+\u2212]?[ \u00a0\u2007\u2009\u202f]*(?:' || syncline.number_pattern(p_decimal, p_thousands)
                    || ')[ \u00a0\u2007\u2009\u202f]*%$'
                )
                then syncline.plain_number(syncline.trim_blanks(p_value), p_decimal) || p_ending
            else syncline.refused(p_value)
        end
$$;
comment on function syncline.percentage_text(text, text, text, text) is
'A number with a percent sign, as Postgres writes it, with this ending: e-2 divides it by 100.';

create or replace function syncline.currency_pattern(p_symbols text) returns text
language sql immutable parallel safe
as $$
    select
        '(?:[ \u00a0\u2007\u2009\u202f]*(?:[A-Za-z]{3}|[A-Za-z]{0,3}'
        || '[$\u00a2-\u00a5\u058f\u060b\u09f2\u09f3\u0af1\u0bf9\u0e3f\u17db\u20a0-\u20c0\ufdfc\ufe69\uff04\uffe0\uffe1\uffe5\uffe6]'
        || p_symbols || '))?[ \u00a0\u2007\u2009\u202f]*'
$$;
comment on function syncline.currency_pattern(text) is
'The pattern of a currency, where there is one: a code of three letters, a sign of Unicode, with letters before it too (US$), or one of these alternatives.';

-- The usual amounts are told by a small pattern. For all others the pattern says where signs may stand, and what it
-- leaves of a number without them that there is one, or a pair of parentheses.
create or replace function syncline.currency_text(p_value text, p_decimal text, p_thousands text, p_symbols text) returns text
language sql immutable parallel safe
as $$
    select
        case
            when syncline.trim_blanks(p_value)
                ~ ('^-?[$\u20ac\u00a3]?(?:' || syncline.number_pattern(p_decimal, p_thousands) || ')(?:[ \u00a0]?(?:\u20ac|[A-Z]{3}))?$')
                then syncline.plain_number(
                    translate(syncline.trim_blanks(p_value), E'$\u20ac\u00a3ABCDEFGHIJKLMNOPQRSTUVWXYZ', ''), p_decimal
                )
            when syncline.trim_blanks(p_value)
                ~ (
                    '^[-+(\u2212]?' || syncline.currency_pattern(p_symbols) || '[-+(\u2212]?' || syncline.currency_pattern(p_symbols)
                    || '(?:' || syncline.number_pattern(p_decimal, p_thousands) || ')[ \u00a0\u2007\u2009\u202f]*[-)\u2212]?'
                    || syncline.currency_pattern(p_symbols) || '[-)\u2212]?$'
                )
                and regexp_replace(p_value, '[^-+()\u2212]', '', 'g') in ('', '-', '+', E'\u2212', '()')
                then case when p_value ~ '[-(\u2212]' then '-' else '' end || syncline.plain_number(
                    substring(p_value from '(?:[' || p_decimal || ']?[0-9].*[0-9]|[' || p_decimal || ']?[0-9])'), p_decimal
                )
            else syncline.refused(p_value)
        end
$$;
comment on function syncline.currency_text(text, text, text, text) is
'An amount of money as Postgres writes a number: without its currency, negative where it has a minus or stands in parentheses.';

-- dates and times

-- Postgres reads J and a day's number in the Julian calendar of astronomers under any DateStyle, and casting a date to
-- text depends on it.
create or replace function syncline.julian_text(p_microseconds bigint, p_epoch integer) returns text
language sql immutable parallel safe
as $$
    select
        'J' || (p_epoch + (p_microseconds - ((p_microseconds % 86400000000) + 86400000000) % 86400000000) / 86400000000)::text
        || ' ' || (time '00:00' + (((p_microseconds % 86400000000) + 86400000000) % 86400000000) * interval '1 microsecond')::text
        || '+00'
$$;
comment on function syncline.julian_text(bigint, integer) is
'The moment so many microseconds after the start of a Julian day, in UTC, in a text that every date and timestamp takes.';

-- A spreadsheet that counts from 1900 takes that year for a leap year: its day 60 never was, and what is before it is
-- one less. Milliseconds are what it shows; the digits behind them are noise of the fraction.
create or replace function syncline.serial_text(p_value text) returns text
language sql immutable parallel safe
as $$
    select
        case
            when syncline.trim_blanks(p_value) ~ '^[0-9]{1,7}(?:[.][0-9]+)?$' then
                case
                    when syncline.trim_blanks(p_value)::numeric >= 2958466 then chr(26)
                    when syncline.trim_blanks(p_value)::numeric >= 61 then
                        syncline.julian_text(round(syncline.trim_blanks(p_value)::numeric * 86400000)::bigint * 1000, 2415019)
                    when syncline.trim_blanks(p_value)::numeric >= 60 then chr(26)
                    when syncline.trim_blanks(p_value)::numeric >= 1 then
                        syncline.julian_text(round(syncline.trim_blanks(p_value)::numeric * 86400000)::bigint * 1000, 2415020)
                    else chr(26)
                end
            else syncline.refused(p_value)
        end
$$;
comment on function syncline.serial_text(text) is
'The day and time that a spreadsheet''s serial number of the system from 1900 stands for.';

create or replace function syncline.unix_text(p_value text) returns text
language sql immutable parallel safe
as $$
    select
        case
            when syncline.trim_blanks(p_value) ~ '^-?(?:0|[1-9][0-9]{0,10})(?:[.][0-9]+)?$' then
                case
                    when syncline.trim_blanks(p_value)::numeric >= -62135596800 then
                        syncline.julian_text(round(syncline.trim_blanks(p_value)::numeric * 1000000)::bigint, 2440588)
                    else chr(26)
                end
            when syncline.trim_blanks(p_value) ~ '^-?[1-9][0-9]{11,13}(?:[.][0-9]+)?$' then
                case
                    when syncline.trim_blanks(p_value)::numeric >= -62135596800000 then
                        syncline.julian_text(round(syncline.trim_blanks(p_value)::numeric * 1000)::bigint, 2440588)
                    else chr(26)
                end
            else syncline.refused(p_value)
        end
$$;
comment on function syncline.unix_text(text) is
'The moment so many seconds after the start of 1970 in UTC, or, of 12 digits and more, so many milliseconds.';

create or replace function syncline.zoned_text(p_value text, p_zone text) returns text
language sql immutable parallel safe
as $$
    select
        case
            when syncline.trim_blanks(p_value)
                ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.][0-9]+)?)?)?$'
                then syncline.trim_blanks(p_value) || ' ' || p_zone
            when syncline.trim_blanks(p_value)
                ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.][0-9]+)?)? ?(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)$'
                then syncline.trim_blanks(p_value)
            else syncline.refused(p_value)
        end
$$;
comment on function syncline.zoned_text(text, text) is
'A time in ISO 8601 with this time zone, unless it has an offset of its own.';

-- other texts

create or replace function syncline.email_text(p_value text, p_is_lower boolean) returns text
language sql immutable parallel safe
as $$
    select
        case
            when syncline.trim_blanks(p_value)
                ~ '^[^@ \t\n\v\f\r\u00a0\u2007\u2009\u202f"(),:;<>\[\]\\]+@(?:[^@ \t\n\v\f\r\u00a0\u2007\u2009\u202f"(),:;<>\[\]\\./]+[.])+[^@ \t\n\v\f\r\u00a0\u2007\u2009\u202f"(),:;<>\[\]\\./0-9]{2,}$'
                and length(syncline.trim_blanks(p_value)) <= 254
                then
                case
                    when p_is_lower then syncline.lower_text(syncline.trim_blanks(p_value))
                    else split_part(syncline.trim_blanks(p_value), '@', 1)
                        || '@' || syncline.lower_text(split_part(syncline.trim_blanks(p_value), '@', 2))
                end
            else syncline.refused(p_value)
        end
$$;
comment on function syncline.email_text(text, boolean) is
'An email address without blanks around it, its domain, or all of it, in lower case.';

create or replace function syncline.phone_digits(p_value text) returns text
language sql immutable parallel safe
as $$ select translate(replace(p_value, '(0)', ''), E' \t\n\x0b\f\r\u00a0\u2007\u2009\u202f.-/()\u2010\u2011\u2012\u2013', '') $$;
comment on function syncline.phone_digits(text) is
'A phone number without what is written between its digits.';

create or replace function syncline.phone_text(p_value text, p_code text, p_prefix text, p_national text) returns text
language sql immutable parallel safe
as $$
    select
        case
            when syncline.phone_digits(p_value) ~ '^[+][1-9][0-9]+$'
                then case when length(syncline.phone_digits(p_value)) between 8 and 16 then syncline.phone_digits(p_value) else chr(26) end
            when syncline.phone_digits(p_value) ~ ('^' || p_prefix || '[1-9][0-9]{6,14}$')
                then '+' || regexp_replace(syncline.phone_digits(p_value), '^' || p_prefix, '')
            when length(p_code || substring(syncline.phone_digits(p_value) from p_national)) between 7 and 15
                then '+' || p_code || substring(syncline.phone_digits(p_value) from p_national)
            else syncline.refused(p_value)
        end
$$;
comment on function syncline.phone_text(text, text, text, text) is
'A phone number in E.164: an international one by its prefix, a national one by this calling code and this pattern.';

create or replace function syncline.uuid_text(p_value text) returns text
language sql immutable parallel safe
as $$
    select
        case
            when translate(syncline.trim_blanks(p_value), 'ABCDEF', 'abcdef')
                ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                then translate(syncline.trim_blanks(p_value), 'ABCDEF', 'abcdef')
            when syncline.trim_blanks(p_value)
                ~ '^(?:[0-9A-Fa-f]{8}-?(?:[0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}|[{][0-9A-Fa-f]{8}-?(?:[0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}[}])$'
                then regexp_replace(
                    translate(syncline.trim_blanks(p_value), 'ABCDEF{}-', 'abcdef'), '^(.{8})(.{4})(.{4})(.{4})(.{12})$', '\1-\2-\3-\4-\5'
                )
            else syncline.refused(p_value)
        end
$$;
comment on function syncline.uuid_text(text) is
'A UUID in lower case with hyphens, of one in braces, in upper case or without hyphens too.';

-- A part that is empty counts for nothing: `a,,b,` is a list of two.
create or replace function syncline.list_literal(p_value jsonb, p_separator text, p_blanks text) returns text
language sql immutable parallel safe
as $$
    select
        case
            when jsonb_typeof(p_value) = 'array' then syncline.array_literal(p_value, false)
            when jsonb_typeof(p_value) = 'object' then chr(26)
            else replace(
                '{"' || regexp_replace(
                    regexp_replace(
                        replace(replace(p_value #>> '{}', '\', '\\'), '"', '\"'),
                        '^' || p_blanks || '(?:' || p_separator || p_blanks || ')*|' || p_blanks || '(?:' || p_separator || p_blanks || ')*$',
                        '', 'g'
                    ),
                    p_blanks || '(?:' || p_separator || p_blanks || ')+', '","', 'g'
                ) || '"}',
                '{""}', '{}'
            )
        end
$$;
comment on function syncline.list_literal(jsonb, text, text) is
'A text of parts as the text of a Postgres array, by the patterns of what separates them and of the blanks around them; a JSON array as it is.';
