{#-
    A day, or a day and a time, in one of several formats, tried in order.

    formats  as typed() takes them: `DD/MM/YYYY`, `DD Mon YYYY`
    serial   a number is a spreadsheet's serial number, of the system that counts from 1900
-#}
{%- macro as_date(formats=[], serial=false) -%}
    {%- do _check_formats('as_date', formats) -%}
    {%- if not formats and not serial -%}
        {%- do exceptions.raise_compiler_error("as_date(): it needs formats, serial=true, or both") -%}
    {%- endif -%}
    {%- set has_offset = modules.re.search(' ?(TZ|OF)(\\n|$)', formats | join('\n')) -%}
    {%- set rest = ['syncline.serial_text(' if serial else 'syncline.refused(', ')'] -%}
    {{ return({
        'name': (formats + (['a serial number'] if serial else [])) | join(' or '),
        'sql': _date_cases(formats, '+00', rest) if formats else rest,
        'types': ['timestamptz'] if has_offset else ['date', 'timestamp', 'timestamptz'],
        'is_exact': true,
        'empties': false,
    }) }}
{%- endmacro -%}


{%- macro _check_formats(name, formats) -%}
    {%- if formats is string or formats is mapping or formats is not iterable or formats | reject('string') | list -%}
        {%- do exceptions.raise_compiler_error(name ~ "(): formats is a list: formats=['DD/MM/YYYY']") -%}
    {%- endif -%}
{%- endmacro -%}
