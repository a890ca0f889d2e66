{#-
    One of some texts, and what each becomes; letters and blanks have to agree.

    values  a map of text to value, none for null; or a list of the texts that are taken as they are
    other   what becomes of any other text: refused (none), kept ('keep'), or this value
-#}
{%- macro as_enum(values, other=none) -%}
    {%- if values is string or values is not iterable or not values -%}
        {%- do exceptions.raise_compiler_error("as_enum(): it needs a map such as {'Active': 'active'}, or a list of texts") -%}
    {%- endif -%}
    {%- set whens = [] -%}
    {%- for key in values -%}
        {%- do whens.append('when ' ~ _literal(_enum_text(key)) ~ ' then ' ~ _enum_value(values[key] if values is mapping else key)) -%}
    {%- endfor -%}
    {%- set parts = ['case ', ' ' ~ whens | join(' ') ~ ' else '] -%}
    {%- if other is none -%}
        {%- set parts = [parts[0], parts[1] ~ 'syncline.refused(', ') end'] -%}
    {%- elif other == 'keep' -%}
        {%- set parts = [parts[0], parts[1], ' end'] -%}
    {%- else -%}
        {#- What an earlier transform has refused stays so, and a null is no other text. -#}
        {%- set parts = [parts[0], parts[1] ~ 'case when syncline.is_refused(', ') is false then ' ~ _enum_value(other) ~ ' else ', ' end end'] -%}
    {%- endif -%}
    {{ return({
        'name': 'enum',
        'sql': parts,
        'types': ['text', 'number', 'integer', 'boolean', 'date', 'timestamp', 'timestamptz', 'uuid', 'other'],
        'refuses': other is none,
        'empties': values is mapping and none in values.values(),
    }) }}
{%- endmacro -%}


{%- macro _enum_text(value) -%}
    {{ return((value | string | lower) if value is boolean else (value | string)) }}
{%- endmacro -%}


{%- macro _enum_value(value) -%}
    {{ return('null' if value is none else _literal(_enum_text(value))) }}
{%- endmacro -%}
