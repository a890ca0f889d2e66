{{ config(materialized='versioned', unique_key=['media_id', 'media_tag_id']) }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as media_id,
    {{ typed('tagId', 'bigint', required=true, record='item') }} as media_tag_id
from {{ source('agency', 'portfolio_media') }}
{# Not jsonb_array_elements, which fails the whole statement where a record holds something other than an array. #}
cross join lateral jsonb_path_query(payload, '$.tags[*]') as link (item)
