{#- The entities that a model reads through ref(), its ephemeral parents' included: a list of entity, is_next. -#}
{%- macro _read_inputs(node) -%}
    {%- set found = {} -%}
    {%- do _collect_inputs(node, found) -%}
    {{ return(found.values() | list) }}
{%- endmacro -%}


{%- macro _collect_inputs(node, found) -%}
    {%- for unique_id in node.depends_on.nodes if unique_id in graph.nodes -%}
        {%- set parent = graph.nodes[unique_id] -%}
        {%- if parent.config.materialized == 'versioned' -%}
            {%- do found.update({unique_id: {'entity': parent.name, 'is_next': _reads_next(unique_id)}}) -%}
        {%- elif parent.config.materialized == 'ephemeral' -%}
            {%- do _collect_inputs(parent, found) -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro -%}
