{#-
    A number in a local form; a JSON number is taken as it is.

    decimal    the mark before the fraction: `.` or `,`
    thousands  the mark between groups of three digits, which may be missing: `,`, `.`, `'`, ` ` (any blank), or none
-#}
{%- macro as_number(decimal='.', thousands=none) -%}
    {{ return({
        'name': 'number',
        'sql': ['syncline.number_text(', ', ' ~ _number_marks('as_number', decimal, thousands) ~ ')'],
        'types': ['number', 'integer'],
        'is_exact': true,
        'empties': false,
        'is_local': decimal != '.',
    }) }}
{%- endmacro -%}


{#- The marks of a number as SQL; between thousands there is by default the one of , and . that is not the decimal. -#}
{%- macro _number_marks(name, decimal, thousands) -%}
    {%- set between = {'.': ',', ',': '.'}.get(decimal) if thousands is none else thousands -%}
    {%- if decimal not in ('.', ',') -%}
        {%- do exceptions.raise_compiler_error(name ~ "(): decimal is '.' or ','") -%}
    {%- elif between not in ('.', ',', "'", ' ', '') or between == decimal -%}
        {%- do exceptions.raise_compiler_error(name ~ "(): thousands is ',', '.', \"'\", ' ' or '', and not what decimal is") -%}
    {%- endif -%}
    {{ return(_literal(decimal) ~ ', ' ~ _literal(between)) }}
{%- endmacro -%}
