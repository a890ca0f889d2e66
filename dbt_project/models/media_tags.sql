{# By slug, not by id: a tag that was entered twice would be offered twice to whoever filters by it. #}
{{ config(materialized='versioned', unique_key='slug') }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as media_tag_id,
    {{ typed('name', 'text', required=true) }} as name,
    {{ typed('slug', 'text', required=true) }} as slug,
    {{ typed('usage', 'text') }} as usage,
    {{ typed('updatedAt', 'timestamptz') }} as updated_at
from {{ source('agency', 'media_tags') }}
