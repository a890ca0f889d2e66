{{ config(materialized='versioned', unique_key='media_id') }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as media_id,
    {{ typed('portfolioId', 'bigint', required=true) }} as portfolio_id,
    {{ typed('type', 'text') }} as media_type,
    {{ typed('url', 'text', required=true) }} as url,
    {{ typed('width', 'integer') }} as width,
    {{ typed('height', 'integer') }} as height,
    {{ typed('credit.photographer', 'text') }} as photographer,
    {{ typed('updatedAt', 'timestamptz') }} as updated_at
from {{ source('agency', 'portfolio_media') }}
