{#- An entity is addressed by its candidate, <entity>_next: tests judge that. dbt heeds this in the root project only. -#}
{%- macro generate_alias_name(custom_alias_name=none, node=none) -%}
    {%- if node is not none and node.config.materialized == 'versioned' -%}
        {{ node.name }}_next
    {%- elif custom_alias_name -%}
        {{ custom_alias_name | trim }}
    {%- elif node is not none and node.version -%}
        {{ node.name ~ "_v" ~ (node.version | replace(".", "_")) }}
    {%- else -%}
        {{ node.name }}
    {%- endif -%}
{%- endmacro -%}
