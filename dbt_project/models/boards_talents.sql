{{ config(materialized='versioned', unique_key=['board_id', 'talent_id']) }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as board_id,
    {{ typed('talentId', 'bigint', required=true, record='item') }} as talent_id,
    {{ typed('position', 'integer', record='item') }} as position
from {{ source('agency', 'boards') }}
{# Not jsonb_array_elements, which fails the whole statement where a record holds something other than an array. #}
cross join lateral jsonb_path_query(payload, '$.talents[*]') as link (item)
