{#-
    A moment, written in the local time of a zone or counted from 1970.

    zone     the time zone of what has no offset of its own: `Europe/Prague`
    formats  as typed() takes them, tried in order; without any, ISO 8601
    unix     a number counts the seconds from 1970 in UTC, one of 12 digits or more the milliseconds
-#}
{%- macro as_timestamp(zone=none, formats=[], unix=false) -%}
    {%- do _check_formats('as_timestamp', formats) -%}
    {%- if not zone and not formats and not unix -%}
        {%- do exceptions.raise_compiler_error("as_timestamp(): it needs a zone, formats or unix=true") -%}
    {%- endif -%}
    {%- if zone and zone not in modules.pytz.all_timezones -%}
        {%- do exceptions.raise_compiler_error("as_timestamp(): there is no time zone '" ~ zone ~ "'; it has a name such as Europe/Prague") -%}
    {%- endif -%}
    {%- set rest = ['syncline.unix_text(' if unix else 'syncline.refused(', ')'] -%}
    {%- if formats -%}
        {%- set parts = _date_cases(formats, ' ' ~ zone if zone else '+00', rest) -%}
    {%- elif zone and unix -%}
        {%- set parts = ['coalesce(syncline.unless_refused(syncline.zoned_text(', ', ' ~ _literal(zone) ~ ')), syncline.unix_text(', '))'] -%}
    {%- elif zone -%}
        {%- set parts = ['syncline.zoned_text(', ', ' ~ _literal(zone) ~ ')'] -%}
    {%- else -%}
        {%- set parts = rest -%}
    {%- endif -%}
    {%- set names = formats if formats else ['ISO 8601'] if zone else [] -%}
    {{ return({
        'name': (names + (['a unix time'] if unix else [])) | join(' or '),
        'sql': parts,
        'types': ['timestamptz'],
        'is_exact': true,
        'empties': false,
    }) }}
{%- endmacro -%}
