{#-
    A text that is cleaned: no blanks around it, and a null where nothing is left.

    trim           leave out the blanks around it, no-break blanks included
    case           lower, upper or title
    empty_to_null  an empty text is a missing value
    collapse       one blank in the place of several, whatever kind they are of
-#}
{%- macro as_text(trim=true, case=none, empty_to_null=true, collapse=false) -%}
    {%- if case not in (none, 'lower', 'upper', 'title') -%}
        {%- do exceptions.raise_compiler_error("as_text(): case is lower, upper or title") -%}
    {%- endif -%}
    {%- set calls = (['syncline.trim_blanks('] if trim else []) + (['syncline.collapse_blanks('] if collapse else [])
        + (['syncline.' ~ case ~ '_text('] if case else []) -%}
    {%- set before = ('nullif(' if empty_to_null else '') ~ calls | join -%}
    {{ return({
        'name': 'text',
        'sql': [before, ')' * calls | length ~ (", '')" if empty_to_null else '')],
        'refuses': false,
        'empties': empty_to_null,
    }) }}
{%- endmacro -%}
