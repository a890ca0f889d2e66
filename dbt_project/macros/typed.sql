{#-
    The value at a JSON path as a column of a type, in SQL that never fails: a value that does not fit is null with a
    row error; of a required one, missing included, the record is rejected and keeps its last good rows.

    path       dotted (`address.city`, `tags.0`); `.` is the record itself
    type       any Postgres type: bigint, numeric(10,2), date, timestamptz, boolean, jsonb, text[], ...
    required   reject the record where the value is missing or does not fit
    format     of a date or timestamp: DD, MM, YYYY, HH24, MI, SS in any order, `DD/MM/YYYY`; TZ at its end is an offset
    record     the jsonb value to read from: `payload`, or an element that was unnested
    transform  what is done to the text before it is cast: as_currency(decimal=','), or a list of such, in order

    The mark behind the expression says where the column comes from; syncline.mapping reads it. A build's first try
    puts syncline.has_form in the place of syncline.is_valid: see syncline.write_typed.
-#}
{%- macro typed(path, type, required=false, format=none, record='payload', transform=none) -%}
    {%- set transforms = _read_transforms(type, format, transform) -%}
    {%- set form = transforms | map(attribute='name') | join(', ') if transforms else format -%}
    {%- set facts = {'path': path, 'type': type, 'required': required} -%}
    {%- if form -%}{%- do facts.update({'format': form}) -%}{%- endif -%}
    {%- set mark = '/* syncline:typed ' ~ tojson(facts) ~ ' */' -%}
    {%- set raw = _json_text(path, record) -%}
    {%- set wanted = type ~ (' as ' ~ form if form else '') -%}
    {%- set rejected = _rejected(path, wanted, raw, required) -%}
    {%- if transforms -%}
        {%- set value = _transformed(transforms, path, record) -%}
    {%- elif format -%}
        {%- set value = _date_text(raw, type, format) -%}
    {%- elif modules.re.search('(?i)(\\]|\\sarray)\\s*$', type) -%}
        {%- set value = _array_text(path, record, type) -%}
    {%- else -%}
        {%- set value = raw -%}
    {%- endif -%}
    {%- if transforms -%}
        {{ _checked(transforms, value, type, required, rejected, _rejected(path, wanted, "case when " ~ value ~ " is not null then " ~ raw ~ " end", required)) }} {{ mark }}
    {%- elif type in ('jsonb', 'json') -%}
        {%- set value = "nullif(" ~ _json_value(path, record) ~ ", 'null'::jsonb)" ~ ('::json' if type == 'json' else '') -%}
        {{ "coalesce(" ~ value ~ ", " ~ rejected ~ "::" ~ type ~ ")" if required else value }} {{ mark }}
    {%- elif type == 'text' -%}
        {{ "coalesce(" ~ raw ~ ", " ~ rejected ~ ")" if required else raw }} {{ mark }}
    {%- else -%}
        {#- A format has made sure of the form. -#}
        {%- set test = 'syncline.is_castable' if format else 'syncline.is_valid' -%}
        case when {{ test }}({{ value }}, {{ _literal(type) }}){{ '' if required else ' is not false' }} then ({{ value }})::{{ type }} else {{ rejected }}::{{ type }} end {{ mark }}
    {%- endif -%}
{%- endmacro -%}


{#- _key sorts by bytes; the column must not inherit that. -#}
{%- macro _rejected(path, wanted, raw, required) -%}
    (syncline.reject(_key, _ordinal, {{ _literal(path) }}, {{ _literal(wanted) }}, {{ raw }}, {{ required | string | lower }}) collate "default")
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
