{{ config(materialized='versioned', unique_key='customer_id', on_missing='keep') }}

select
    _key,
    {{ typed('customer_id', 'bigint', required=true) }} as customer_id,
    {{ typed('email', 'text', required=true) }} as email,
    {{ typed('full_name', 'text', required=true) }} as full_name,
    {{ typed('address', 'jsonb') }} as address,
    {{ typed('address.city', 'text') }} as city,
    {{ typed('updated_at', 'timestamptz') }} as updated_at
from {{ source('replica', 'customers') }}
