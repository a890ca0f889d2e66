{# One account a network: the site links to the account, and would not know which of two to take. #}
{{ config(materialized='versioned', unique_key=['talent_id', 'platform']) }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as social_id,
    {{ typed('talentId', 'bigint', required=true) }} as talent_id,
    {{ typed('platform', 'text', required=true) }} as platform,
    {{ typed('handle', 'text', required=true) }} as handle,
    {{ typed('url', 'text') }} as url,
    {{ typed('followers', 'bigint') }} as followers,
    {{ typed('updatedAt', 'timestamptz') }} as updated_at
from {{ source('agency', 'socials') }}
