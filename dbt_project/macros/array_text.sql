{#- The text of a Postgres array: of a JSON array, or as it is written in a string. -#}
{%- macro _array_text(path, record, type) -%}
    {%- set of_json = 'true' if modules.re.match('(?i)\\s*jsonb?\\b', type) else 'false' -%}
    syncline.array_literal({{ _json_value(path, record) }}, {{ of_json }})
{%- endmacro -%}
