{{ config(materialized='versioned', unique_key='portfolio_id') }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as portfolio_id,
    {{ typed('talentId', 'bigint', required=true) }} as talent_id,
    {{ typed('title', 'text', required=true) }} as title,
    {{ typed('kind', 'text') }} as kind,
    {{ typed('isPublished', 'boolean') }} as is_published,
    {{ typed('updatedAt', 'timestamptz') }} as updated_at
from {{ source('agency', 'portfolios') }}
