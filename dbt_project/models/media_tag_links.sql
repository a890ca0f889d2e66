{{ config(materialized='versioned', unique_key=['media_id', 'media_tag_id']) }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as media_id,
    {{ typed('tagId', 'bigint', required=true, record='item') }} as media_tag_id
from {{ source('agency', 'portfolio_media') }}
{# Strict and silent: a field that is no array gives nothing. jsonb_array_elements would fail the build there. #}
cross join lateral jsonb_path_query(payload, 'strict $.tags[*]', '{}', true) as link (item)
