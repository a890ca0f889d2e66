{#-
    Builds an entity's inactive version and points <entity>_next at it; never publishes.
    Config: unique_key (a column or a list), on_missing (delete or keep), delta (auto or full), indexes,
    max_delete_ratio (0.3), max_error_ratio (0.1). The work is syncline.build's, in one transaction.
-#}
{% materialization versioned, adapter='postgres' %}

    {%- do _check_versioned_config() -%}
    {%- set relation = this.incorporate(type='view') -%}
    {%- set unique_key = config.get('unique_key') or [] -%}
    {%- set streams = _read_streams(model) -%}
    {%- set spec = {
        'engine': 2,
        'entity': model.name,
        'schema': this.schema,
        'sql': sql,
        'unique_key': [unique_key] if unique_key is string else unique_key,
        'on_missing': config.get('on_missing', 'delete'),
        'delta': config.get('delta', 'auto'),
        'indexes': config.get('indexes', []),
        'max_delete_ratio': config.get('max_delete_ratio', 0.3),
        'redact': streams | selectattr('redact') | list | length > 0,
        'streams': streams,
        'inputs': _read_inputs(model),
    } -%}

    {{ run_hooks(pre_hooks) }}
    {% call statement('main') %}
        select syncline.build('{{ tojson(spec) | replace("'", "''") }}'::jsonb)
    {% endcall %}
    {{ run_hooks(post_hooks) }}
    {% do adapter.commit() %}
    {{ return({'relations': [relation]}) }}

{% endmaterialization %}


{%- macro _check_versioned_config() -%}
    {%- set later = {'on_missing': ['mark'], 'on_schema_change': ['recreate']} -%}
    {%- set known = {
        'on_missing': ['delete', 'keep'],
        'delta': ['auto', 'full'],
        'on_schema_change': ['ignore', 'fail'],
    } -%}
    {%- for name, values in known.items() -%}
        {%- set value = config.get(name, values[0]) -%}
        {%- if value in later.get(name, []) -%}
            {%- do exceptions.raise_compiler_error(model.name ~ ": " ~ name ~ "='" ~ value ~ "' is not supported by this release; use " ~ values | join(' or ')) -%}
        {%- elif value not in values -%}
            {%- do exceptions.raise_compiler_error(model.name ~ ": " ~ name ~ " is '" ~ value ~ "'; it can be " ~ values | join(' or ')) -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro -%}
