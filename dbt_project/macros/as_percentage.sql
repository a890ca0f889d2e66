{#-
    A number with a percent sign: `12.5%` is 0.125.

    decimal, thousands  as of as_number()
    scale               false keeps the number that is written: 12.5
-#}
{%- macro as_percentage(decimal='.', thousands=none, scale=true) -%}
    {{ return({
        'name': 'percentage',
        'sql': ['syncline.percentage_text(', ', ' ~ _number_marks('as_percentage', decimal, thousands) ~ ', ' ~ ("'e-2'" if scale else "''") ~ ')'],
        'types': ['number'] if scale else ['number', 'integer'],
        'is_exact': true,
        'empties': false,
    }) }}
{%- endmacro -%}
