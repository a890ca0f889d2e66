{{ config(materialized='versioned', unique_key=['board_id', 'talent_id']) }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as board_id,
    {{ typed('talentId', 'bigint', required=true, record='item') }} as talent_id,
    {{ typed('position', 'integer', record='item') }} as position
from {{ source('agency', 'boards') }}
{# Strict and silent: a field that is no array gives nothing. jsonb_array_elements would fail the build there. #}
cross join lateral jsonb_path_query(payload, 'strict $.talents[*]', '{}', true) as link (item)
