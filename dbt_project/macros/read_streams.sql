{#- The streams that a model reads, its ephemeral parents' included: a list of source, stream, relation, redact. -#}
{%- macro _read_streams(node) -%}
    {%- set found = {} -%}
    {%- do _collect_streams(node, found) -%}
    {%- set streams = [] -%}
    {%- for unique_id in found | sort -%}
        {%- set declared = graph.sources[unique_id] -%}
        {%- set settings = (declared.config.meta or declared.meta or {}).get('syncline', {}) -%}
        {%- do streams.append({
            'source': declared.source_name,
            'stream': declared.name,
            'relation': builtins.source(declared.source_name, declared.name) | string,
            'redact': settings.get('redact', false),
        }) -%}
    {%- endfor -%}
    {{ return(streams) }}
{%- endmacro -%}


{%- macro _collect_streams(node, found) -%}
    {%- for unique_id in node.depends_on.nodes -%}
        {%- if unique_id.startswith('source.') -%}
            {%- set settings = graph.sources[unique_id].config.meta or graph.sources[unique_id].meta or {} -%}
            {%- if 'syncline' in settings -%}
                {%- do found.update({unique_id: true}) -%}
            {%- endif -%}
        {%- elif graph.nodes.get(unique_id, {}).get('config', {}).get('materialized') == 'ephemeral' -%}
            {%- do _collect_streams(graph.nodes[unique_id], found) -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro -%}
