{#-
    The text of a date or timestamp that is written in a format, year first as Postgres reads it whatever its settings;
    a value that does not match the format gives a text that is no date. Blanks around a value do not count, a day, a
    month and an hour may have one digit, and a time at the end may be missing. Mon is an English month, short or in full.
-#}
{%- macro _date_text(raw, type, format) -%}
    {%- set kind = type | trim | lower -%}
    {%- set has_zone = kind.startswith('timestamptz') or (kind.startswith('timestamp') and 'with time zone' in kind) -%}
    {%- if not (kind == 'date' or kind.startswith('timestamp')) -%}
        {%- do exceptions.raise_compiler_error("typed(): a format is for date, timestamp and timestamptz, not for " ~ type) -%}
    {%- endif -%}
    {%- set rule = _date_rule(format, has_zone, '+00', false) -%}
    {#- What does not match is matched by the other branch, which leaves nothing of it. -#}
    regexp_replace({{ raw }}, {{ _literal(rule.options ~ '^\\s*' ~ rule.pattern ~ '\\s*$|^.*$') }}, '{{ rule.text }}')
{%- endmacro -%}


{#-
    How a format is read: a pattern with a group for each part, its options, and the text that the groups become, with
    `zone` behind it where the format has no offset. Where it has one, `needs_offset` takes no value without it.
-#}
{%- macro _date_rule(format, has_zone, zone, needs_offset) -%}
    {%- set ending = modules.re.search(' ?(TZ|OF)$', format) -%}
    {%- if ending and not has_zone -%}
        {%- do exceptions.raise_compiler_error("typed(): the format '" ~ format ~ "' has an offset, which only a timestamptz takes") -%}
    {%- endif -%}
    {#- In capitals it is a word as the others are. -#}
    {%- set written = (format[:-(ending.group(0) | length)] if ending else format).replace('Mon', 'MON') -%}
    {%- set tokens = modules.re.findall('YYYY|HH24|MON|MM|DD|MI|SS', written) -%}
    {%- set month = 'MON' if 'MON' in tokens else 'MM' -%}
    {%- if not ('YYYY' in tokens and month in tokens and 'DD' in tokens) -%}
        {%- do exceptions.raise_compiler_error("typed(): the format '" ~ format ~ "' needs YYYY, MM and DD") -%}
    {%- endif -%}
    {%- if tokens | unique | list | length != tokens | length
        or modules.re.search('[A-SU-Za-z0-9]', modules.re.sub('YYYY|HH24|MON|MM|DD|MI|SS', '', written))
        or ('MON' in tokens and 'MM' in tokens) or ('MI' in tokens and 'HH24' not in tokens) or ('SS' in tokens and 'MI' not in tokens) -%}
        {%- do exceptions.raise_compiler_error("typed(): the format '" ~ format ~ "' cannot be read; it is made of YYYY, MM or Mon (a month's name, short or in full), DD, HH24, MI, SS, each once, and TZ at its end") -%}
    {%- endif -%}
    {%- set places = {} -%}
    {%- for token in tokens -%}
        {%- do places.update({token: '\\' ~ loop.index}) -%}
    {%- endfor -%}
    {#- Parts that touch each other have two digits: 05062026. -#}
    {%- set is_packed = modules.re.search('(YYYY|HH24|MM|DD|MI|SS){2}', written) -%}
    {%- set digits = '([0-9]{2})' if is_packed else '([0-9]{1,2})' -%}
    {%- set escaped = modules.re.escape(written) -%}
    {%- set time = modules.re.search('[^A-Z]*T?HH24((?!YYYY|MM|MON|DD).)*$', escaped) -%}
    {%- set offset = ' ?(Z|[+-][0-9]{2}(?::?[0-9]{2})?)' if ending else '' -%}
    {%- if time and not (ending and needs_offset) -%}
        {%- set escaped = escaped[:time.start()] ~ '(?:' ~ time.group(0) ~ offset ~ ')?' -%}
    {%- else -%}
        {%- set escaped = escaped ~ offset -%}
    {%- endif -%}
    {%- set pattern = modules.re.sub('MI|SS', '([0-9]{2})', modules.re.sub('HH24|MM|DD', digits, escaped.replace('YYYY', '([0-9]{4})').replace('MON', _month_names()))) -%}
    {#- With a zero before it an hour that is missing is midnight. -#}
    {%- set clock = '' -%}
    {%- if 'HH24' in places -%}
        {%- set clock = ' 0' ~ places['HH24'] ~ (':0' ~ places['MI'] if 'MI' in places else ':00') ~ (':0' ~ places['SS'] if 'SS' in places else ':00') -%}
    {%- elif has_zone -%}
        {%- set clock = ' 00:00:00' -%}
    {%- endif -%}
    {%- set suffix = '\\' ~ (tokens | length + 1) if ending else zone if has_zone else '' -%}
    {%- set date = places['YYYY'] ~ '-' ~ places[month] ~ '-' ~ places['DD'] -%}
    {{ return({'pattern': pattern, 'options': '(?i)' if month == 'MON' else '', 'text': date ~ clock ~ suffix}) }}
{%- endmacro -%}


{%- macro _month_names() -%}
    (jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)
{%- endmacro -%}


{#-
    The parts of an expression that tries formats in order, and gives what `rest` (its parts) makes of any other text.
-#}
{%- macro _date_cases(formats, zone, rest) -%}
    {%- set parts = ['case'] -%}
    {%- for format in formats -%}
        {%- set rule = _date_rule(format, true, zone, true) -%}
        {%- set pattern = _literal(rule.options ~ '^' ~ rule.pattern ~ '$') -%}
        {%- do parts.append(parts.pop() ~ ' when syncline.trim_blanks(') -%}
        {%- do parts.append(') ~ ' ~ pattern ~ ' then regexp_replace(syncline.trim_blanks(') -%}
        {%- do parts.append('), ' ~ pattern ~ ", '" ~ rule.text ~ "')") -%}
    {%- endfor -%}
    {%- do parts.append(parts.pop() ~ ' else ' ~ rest[0]) -%}
    {{ return(parts + rest[1:-1] + [rest[-1] ~ ' end']) }}
{%- endmacro -%}

