{{ config(materialized='versioned', unique_key='talent_id') }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as talent_id,
    {{ typed('name', 'text', required=true) }} as name,
    {{ typed('slug', 'text', required=true) }} as slug,
    {{ typed('birthDate', 'date', format='DD/MM/YYYY') }} as birth_date,
    {{ typed('gender', 'text') }} as gender,
    {{ typed('email', 'text') }} as email,
    {{ typed('phone', 'text') }} as phone,
    {{ typed('bookable', 'boolean') }} as is_bookable,
    {{ typed('dayRate', 'numeric') }} as day_rate,
    {{ typed('address.city', 'text') }} as city,
    {{ typed('address.country', 'text') }} as country,
    {{ typed('languages', 'jsonb') }} as languages,
    {{ typed('updatedAt', 'timestamptz') }} as updated_at
from {{ source('agency', 'talents') }}
