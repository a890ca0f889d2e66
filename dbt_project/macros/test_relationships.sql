{#-
    dbt's relationships; in a run it reads the changed children, and those whose value left the parent, where the others
    cannot be found: see _narrow_check.
-#}
{%- macro postgres__test_relationships(model, column_name, to, field) -%}
    {%- set whole = default__test_relationships(model, column_name, to, field) -%}
    {%- set check = none -%}
    {%- if whole == dbt.default__test_relationships(model, column_name, to, field) -%}
        {%- set definition = dbt.default__test_relationships('child', column_name, 'parent', field) -%}
        {%- set check = _narrow_check('relationships', definition, model, column_name, to, field) -%}
    {%- endif -%}
    {{ check.mark ~ dbt.default__test_relationships(check.rows, column_name, to, field) if check else whole }}
{%- endmacro -%}
