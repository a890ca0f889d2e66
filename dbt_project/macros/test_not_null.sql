{#- dbt's not_null; in a run it reads the changed rows alone where the others cannot be found: see _narrow_check. -#}
{%- macro postgres__test_not_null(model, column_name) -%}
    {%- set whole = default__test_not_null(model, column_name) -%}
    {%- set check = none -%}
    {%- if whole == dbt.default__test_not_null(model, column_name) -%}
        {%- set check = _narrow_check('not_null', dbt.default__test_not_null('child', column_name), model, column_name) -%}
    {%- endif -%}
    {{ check.mark ~ dbt.default__test_not_null(check.rows, column_name) if check else whole }}
{%- endmacro -%}
