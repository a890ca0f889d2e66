{#- dbt's accepted_values; in a run it reads the changed rows alone where the others cannot be found: see _narrow_check. -#}
{%- macro postgres__test_accepted_values(model, column_name, values, quote=True) -%}
    {%- set whole = default__test_accepted_values(model, column_name, values, quote) -%}
    {%- set check = none -%}
    {#- Without quotes a text is an expression, of which nobody knows what it reads. -#}
    {%- set are_constants = quote or values | reject('number') | reject('boolean') | list | length == 0 -%}
    {%- if are_constants and whole == dbt.default__test_accepted_values(model, column_name, values, quote) -%}
        {%- set definition = dbt.default__test_accepted_values('child', column_name, values, quote) -%}
        {%- set check = _narrow_check('accepted_values', definition, model, column_name) -%}
    {%- endif -%}
    {{ check.mark ~ dbt.default__test_accepted_values(check.rows, column_name, values, quote) if check else whole }}
{%- endmacro -%}
