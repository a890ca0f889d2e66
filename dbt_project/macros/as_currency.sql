{#-
    An amount of money: a number in a local form with a currency before or behind it, which is left out.

    decimal, thousands  as of as_number()
    symbols             what stands for a currency beside the signs of Unicode and codes of three letters: ['Kč']
-#}
{%- macro as_currency(decimal='.', thousands=none, symbols=[]) -%}
    {%- if symbols is string or symbols is mapping or symbols is not iterable or symbols | reject('string') | list or '' in symbols
        or modules.re.search('[0-9+()\u2212-]', symbols | join(' ')) or decimal in symbols | join -%}
        {%- do exceptions.raise_compiler_error("as_currency(): symbols is a list of words without digits, signs and the decimal mark: symbols=['Kč']") -%}
    {%- endif -%}
    {%- set words = [] -%}
    {%- for symbol in symbols -%}
        {%- do words.append('|' ~ modules.re.escape(symbol)) -%}
    {%- endfor -%}
    {{ return({
        'name': 'currency',
        'sql': ['syncline.currency_text(', ', ' ~ _number_marks('as_currency', decimal, thousands) ~ ', ' ~ _literal(words | join) ~ ')'],
        'types': ['number', 'integer'],
        'is_exact': true,
        'empties': false,
        'is_local': decimal != '.',
    }) }}
{%- endmacro -%}
