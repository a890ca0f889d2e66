{#-
    The internal id (uuid) of a record elsewhere, in whatever order things are loaded: always the same for the same type,
    source and key. `key` is SQL, its text counts: {{ external_id('class', 'school', typed('classId', 'text')) }}.
-#}
{%- macro external_id(type, source, key) -%}
    syncline.external_id({{ _literal(type) }}, {{ _literal(source) }}, ({{ key }})::text)
{%- endmacro -%}
