{#-
    What one of dbt's tests on an entity has to read in a run: `rows` to select from, and the `mark` that tells the runner
    which builds the test judged. None where it reads all and is not remembered: outside of a run, and where its verdict
    may hang on more than single rows. syncline.narrow_check decides, from the tests that passed before; a definition is
    the SQL of the test without the names of its relations.
-#}
{%- macro _narrow_check(test, definition, child, column, parent=none, field=none) -%}
    {%- if not (execute and _is_in_run() and _is_dbts_own_test(test)) -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set entity = _entity_of(child) -%}
    {%- set other = _entity_of(parent) if parent is not none else none -%}
    {%- if not entity or (parent is not none and not other) -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set facts = {
        'test': test,
        'definition': local_md5(test ~ ' ' ~ definition),
        'entity': entity.name,
        'is_next': entity.is_next,
        'column': column,
        'parent': other.name if other else none,
        'is_parent_next': other.is_next if other else none,
        'field': field,
    } -%}
    {%- set found = run_query("select syncline.narrow_check('" ~ tojson(facts) | replace("'", "''") ~ "'::jsonb)::text") -%}
    {%- set check = fromjson(found.rows[0][0] or 'null') -%}
    {%- if check is none -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set rows = check.pop('rows') -%}
    {{ return({'rows': rows, 'mark': '/* syncline:check ' ~ tojson(check) ~ ' */'}) }}
{%- endmacro -%}


{#- Without the runner every test reads all: the runner's name in the session settings tells. -#}
{%- macro _is_in_run() -%}
    {{ return('syncline.run_id=' in env_var('PGOPTIONS', '')) }}
{%- endmacro -%}


{#- Whether the test at hand is dbt's own and counts the rows it finds: another may make anything of them. -#}
{%- macro _is_dbts_own_test(test) -%}
    {%- set metadata = model.get('test_metadata') or {} -%}
    {%- set others = [] -%}
    {%- for unique_id in model.depends_on.macros if unique_id.endswith('.test_' ~ test) and unique_id != 'macro.dbt.test_' ~ test -%}
        {%- do others.append(unique_id) -%}
    {%- endfor -%}
    {{ return(
        metadata.get('name') == test
        and not metadata.get('namespace')
        and not others
        and config.get('fail_calc') == 'count(*)'
        and not config.get('sql_header')
        and config.get('store_failures_as') != 'view'
    ) }}
{%- endmacro -%}


{#- The entity that ref() gave this relation for; none where it is another relation, or no relation at all. -#}
{%- macro _entity_of(relation) -%}
    {%- if relation is string or not relation.identifier -%}
        {{ return(none) }}
    {%- endif -%}
    {%- for unique_id in model.depends_on.nodes if unique_id in graph.nodes -%}
        {%- set node = graph.nodes[unique_id] -%}
        {%- set names = [node.alias, node.name ~ '_current'] -%}
        {%- if node.config.materialized == 'versioned' and node.schema == relation.schema and relation.identifier in names -%}
            {{ return({'name': node.name, 'is_next': relation.identifier == node.alias}) }}
        {%- endif -%}
    {%- endfor -%}
    {{ return(none) }}
{%- endmacro -%}
