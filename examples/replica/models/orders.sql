{{ config(materialized='versioned', unique_key='order_id', on_missing='keep') }}

select
    _key,
    {{ typed('order_id', 'bigint', required=true) }} as order_id,
    {{ typed('customer_id', 'bigint', required=true) }} as customer_id,
    {{ typed('status', 'text', required=true) }} as status,
    {{ typed('placed_at', 'timestamptz', required=true) }} as placed_at,
    {{ typed('updated_at', 'timestamptz') }} as updated_at
from {{ source('replica', 'orders') }}
