{{ config(materialized='versioned', unique_key='board_id') }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as board_id,
    {{ typed('title', 'text', required=true) }} as title,
    {{ typed('slug', 'text', required=true) }} as slug,
    {{ typed('category', 'text') }} as category,
    {{ typed('isPublic', 'boolean') }} as is_public,
    {{ typed('updatedAt', 'timestamptz') }} as updated_at
from {{ source('agency', 'boards') }}
