{#-
    Builds an entity's inactive version and points <entity>_next at it; never publishes.
    Config: unique_key (a column or a list), on_missing (delete, keep or mark), on_schema_change (fail or recreate),
    delta (auto or full), indexes, changes (true), history (false), external_ref (type, source, key, metadata),
    max_delete_ratio (0.3), max_error_ratio (0.1). The work is syncline.build's, in one transaction.
-#}
{% materialization versioned, adapter='postgres' %}

    {%- do _check_versioned_config() -%}
    {%- set relation = this.incorporate(type='view') -%}
    {%- set unique_key = config.get('unique_key') or [] -%}
    {%- set streams = _read_streams(model) -%}
    {%- set spec = {
        'engine': 3,
        'entity': model.name,
        'schema': this.schema,
        'sql': sql,
        'unique_key': [unique_key] if unique_key is string else unique_key,
        'on_missing': config.get('on_missing', 'delete'),
        'on_schema_change': config.get('on_schema_change', 'fail'),
        'delta': config.get('delta', 'auto'),
        'indexes': config.get('indexes', []),
        'changes': config.get('changes', true),
        'history': config.get('history', false),
        'external_ref': _external_ref(streams),
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
    {%- set known = {
        'on_missing': ['delete', 'keep', 'mark'],
        'delta': ['auto', 'full'],
        'on_schema_change': ['fail', 'recreate'],
        'changes': [true, false],
        'history': [false, true],
    } -%}
    {%- for name, values in known.items() -%}
        {%- set value = config.get(name, values[0]) -%}
        {#- dbt's own default. -#}
        {%- if value not in values and not (name == 'on_schema_change' and value == 'ignore') -%}
            {%- do exceptions.raise_compiler_error(model.name ~ ": " ~ name ~ " is '" ~ value ~ "'; it can be " ~ values | join(' or ')) -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro -%}


{%- macro _external_ref(streams) -%}
    {%- set ref = config.get('external_ref') -%}
    {%- if not ref -%}{{ return(none) }}{%- endif -%}
    {%- set ref = {'type': ref} if ref is string else ref -%}
    {%- for name in ref if name not in ['type', 'source', 'key', 'metadata'] -%}
        {%- do exceptions.raise_compiler_error(model.name ~ ": external_ref has an unknown setting '" ~ name ~ "'; it can have type, source, key, metadata") -%}
    {%- endfor -%}
    {%- if not ref.type -%}{%- do exceptions.raise_compiler_error(model.name ~ ": external_ref has no type") -%}{%- endif -%}
    {%- set sources = streams | map(attribute='source') | unique | list -%}
    {%- if not ref.source and sources | length != 1 -%}
        {%- do exceptions.raise_compiler_error(model.name ~ ": external_ref needs a source: the model reads " ~ (sources | join(', ') or 'none')) -%}
    {%- endif -%}
    {{ return({
        'type': ref.type,
        'source': ref.source or sources[0],
        'key': ref.key or '_key',
        'metadata': [ref.metadata] if ref.metadata is string else ref.metadata or [],
    }) }}
{%- endmacro -%}
