{#- A UUID in lower case with hyphens: of one in braces, in upper case or without hyphens too. -#}
{%- macro as_uuid() -%}
    {{ return({
        'name': 'uuid',
        'sql': ['syncline.uuid_text(', ')'],
        'types': ['uuid', 'text'],
        'is_exact': true,
        'empties': false,
    }) }}
{%- endmacro -%}
