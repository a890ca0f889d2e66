{#-
    The value at a JSON path as a column of a type, in SQL that never fails: a value that does not fit is null with a
    row error; of a required one, missing included, the record is rejected and keeps its last good rows.

    path      dotted (`address.city`, `tags.0`); `.` is the record itself
    type      any Postgres type: bigint, numeric(10,2), date, timestamptz, boolean, jsonb, ...
    required  reject the record where the value is missing or does not fit
    format    of a date or time: DD, MM, YYYY, HH24, MI, SS in any order, `DD/MM/YYYY`
    record    the jsonb value to read from: `payload`, or an element that was unnested

    The mark behind the expression says where the column comes from; syncline.mapping reads it.
-#}
{%- macro typed(path, type, required=false, format=none, record='payload') -%}
    {%- set mark = '/* syncline:typed ' ~ tojson({'path': path, 'type': type, 'required': required}) ~ ' */' -%}
    {%- set raw = _json_text(path, record) -%}
    {%- set rejected = "syncline.reject(_key, _ordinal, " ~ _literal(path) ~ ", " ~ _literal(type) ~ ", " ~ raw ~ ", " ~ (required | string | lower) ~ ")" -%}
    {%- if type in ('jsonb', 'json') -%}
        {%- set value = "nullif(" ~ _json_value(path, record) ~ ", 'null'::jsonb)" ~ ('::json' if type == 'json' else '') -%}
        {{ "coalesce(" ~ value ~ ", " ~ rejected ~ "::" ~ type ~ ")" if required else value }} {{ mark }}
    {%- elif type == 'text' -%}
        {#- _key sorts by bytes; the column must not inherit that. -#}
        {{ "coalesce(" ~ raw ~ ", " ~ rejected ~ ' collate "default")' if required else raw }} {{ mark }}
    {%- else -%}
        {%- set value = _reordered(raw, format) if format else raw -%}
        case when syncline.is_valid({{ value }}, {{ _literal(type) }}){{ '' if required else ' is not false' }} then ({{ value }})::{{ type }} else {{ rejected }}::{{ type }} end {{ mark }}
    {%- endif -%}
{%- endmacro -%}


{%- macro _literal(text) -%}
    '{{ text | replace("'", "''") }}'
{%- endmacro -%}


{%- macro _json_text(path, record) -%}
    {%- if path == '.' -%}
        ({{ record }} #>> '{}')
    {%- elif '.' in path -%}
        ({{ record }} #>> {{ _literal('{' ~ path.split('.') | join(',') ~ '}') }})
    {%- else -%}
        ({{ record }} ->> {{ _literal(path) }})
    {%- endif -%}
{%- endmacro -%}


{%- macro _json_value(path, record) -%}
    {%- if path == '.' -%}
        {{ record }}
    {%- else -%}
        ({{ record }} #> {{ _literal('{' ~ path.split('.') | join(',') ~ '}') }})
    {%- endif -%}
{%- endmacro -%}


{#- A date's text in ISO order; one that does not match the format becomes a text that is no date. -#}
{%- macro _reordered(raw, format) -%}
    {%- set places = {} -%}
    {%- for token in modules.re.findall('YYYY|HH24|MM|DD|MI|SS', format) -%}
        {%- do places.update({token: '\\' ~ loop.index}) -%}
    {%- endfor -%}
    {%- if not ('YYYY' in places and 'MM' in places and 'DD' in places) -%}
        {%- do exceptions.raise_compiler_error("typed(): the format '" ~ format ~ "' needs YYYY, MM and DD") -%}
    {%- endif -%}
    {%- set escaped = modules.re.sub('([.^$*+?{}|()])', '[\\1]', format) -%}
    {%- set pattern = '^' ~ modules.re.sub('HH24|MM|DD|MI|SS', '([0-9]{1,2})', escaped.replace('YYYY', '([0-9]{4})')) ~ '$' -%}
    {%- set date = places['YYYY'] ~ '-' ~ places['MM'] ~ '-' ~ places['DD'] -%}
    {%- set time = ' ' ~ places['HH24'] ~ ':' ~ places.get('MI', '00') ~ ':' ~ places.get('SS', '00') if 'HH24' in places else '' -%}
    case when {{ raw }} ~ {{ _literal(pattern) }} then regexp_replace({{ raw }}, {{ _literal(pattern) }}, '{{ date ~ time }}') else {{ raw }} || ' ?' end
{%- endmacro -%}
