{#-
    A text of parts as an array; parts that are empty count for nothing. A JSON array stays as it is, and a number or a
    boolean is a list of one.

    separator  the text between the parts
    trim       leave out the blanks around each part
-#}
{%- macro as_list(separator=',', trim=true) -%}
    {%- if separator is not string or not separator -%}
        {%- do exceptions.raise_compiler_error("as_list(): separator is a text: separator=';'") -%}
    {%- endif -%}
    {%- set escaped = modules.re.escape(separator.replace('\\', '\\\\').replace('"', '\\"')) -%}
    {%- set blanks = '[ \\t\\n\\v\\f\\r\\u00a0\\u2007\\u2009\\u202f]*' if trim else '' -%}
    {{ return({
        'name': 'list',
        'sql': ['syncline.list_literal(', ', ' ~ _literal('(?:' ~ escaped ~ ')') ~ ', ' ~ _literal(blanks) ~ ')'],
        'types': ['array'],
        'empties': false,
        'reads_json': true,
    }) }}
{%- endmacro -%}
