{#-
    The text of a date or timestamp that is written in a format, year first as Postgres reads it whatever its settings;
    a value that does not match the format gives a text that is no date. Blanks around a value do not count, a day, a
    month and an hour may have one digit, and a time at the end may be missing.
-#}
{%- macro _date_text(raw, type, format) -%}
    {%- set kind = type | trim | lower -%}
    {%- set has_zone = kind.startswith('timestamptz') or (kind.startswith('timestamp') and 'with time zone' in kind) -%}
    {%- if not (kind == 'date' or kind.startswith('timestamp')) -%}
        {%- do exceptions.raise_compiler_error("typed(): a format is for date, timestamp and timestamptz, not for " ~ type) -%}
    {%- endif -%}
    {%- set ending = modules.re.search(' ?(TZ|OF)$', format) -%}
    {%- if ending and not has_zone -%}
        {%- do exceptions.raise_compiler_error("typed(): the format '" ~ format ~ "' has an offset, which only a timestamptz takes") -%}
    {%- endif -%}
    {%- set written = format[:-(ending.group(0) | length)] if ending else format -%}
    {%- set tokens = modules.re.findall('YYYY|HH24|MM|DD|MI|SS', written) -%}
    {%- if not ('YYYY' in tokens and 'MM' in tokens and 'DD' in tokens) -%}
        {%- do exceptions.raise_compiler_error("typed(): the format '" ~ format ~ "' needs YYYY, MM and DD") -%}
    {%- endif -%}
    {%- if tokens | unique | list | length != tokens | length
        or modules.re.search('[A-SU-Za-z0-9]', modules.re.sub('YYYY|HH24|MM|DD|MI|SS', '', written))
        or ('MI' in tokens and 'HH24' not in tokens) or ('SS' in tokens and 'MI' not in tokens) -%}
        {%- do exceptions.raise_compiler_error("typed(): the format '" ~ format ~ "' cannot be read; it is made of YYYY, MM, DD, HH24, MI, SS, each once, and TZ at its end") -%}
    {%- endif -%}
    {%- set places = {} -%}
    {%- for token in tokens -%}
        {%- do places.update({token: '\\' ~ loop.index}) -%}
    {%- endfor -%}
    {#- Parts that touch each other have two digits: 05062026. -#}
    {%- set is_packed = modules.re.search('(YYYY|HH24|MM|DD|MI|SS){2}', written) -%}
    {%- set digits = '([0-9]{2})' if is_packed else '([0-9]{1,2})' -%}
    {%- set escaped = modules.re.escape(written) -%}
    {%- set time = modules.re.search('[^A-Z]*T?HH24((?!YYYY|MM|DD).)*$', escaped) -%}
    {%- set offset = ' ?(Z|[+-][0-9]{2}(?::?[0-9]{2})?)' if ending else '' -%}
    {%- if time -%}
        {%- set escaped = escaped[:time.start()] ~ '(?:' ~ time.group(0) ~ offset ~ ')?' -%}
    {%- else -%}
        {%- set escaped = escaped ~ offset -%}
    {%- endif -%}
    {%- set pattern = modules.re.sub('MI|SS', '([0-9]{2})', modules.re.sub('HH24|MM|DD', digits, escaped.replace('YYYY', '([0-9]{4})'))) -%}
    {#- With a zero before it an hour that is missing is midnight. -#}
    {%- set clock = '' -%}
    {%- if 'HH24' in places -%}
        {%- set clock = ' 0' ~ places['HH24'] ~ (':0' ~ places['MI'] if 'MI' in places else ':00') ~ (':0' ~ places['SS'] if 'SS' in places else ':00') -%}
    {%- elif has_zone -%}
        {%- set clock = ' 00:00:00' -%}
    {%- endif -%}
    {%- set zone = '\\' ~ (tokens | length + 1) if ending else '+00' if has_zone else '' -%}
    {%- set date = places['YYYY'] ~ '-' ~ places['MM'] ~ '-' ~ places['DD'] -%}
    {#- What does not match is matched by the other branch, which leaves nothing of it. -#}
    regexp_replace({{ raw }}, {{ _literal('^\\s*' ~ pattern ~ '\\s*$|^.*$') }}, '{{ date ~ clock ~ zone }}')
{%- endmacro -%}
