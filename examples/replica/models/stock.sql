{{ config(materialized='versioned', unique_key=['product_id', 'warehouse'], on_missing='keep') }}

select
    _key,
    {{ typed('product_id', 'bigint', required=true) }} as product_id,
    {{ typed('warehouse', 'text', required=true) }} as warehouse,
    {{ typed('quantity', 'bigint', required=true) }} as quantity
from {{ source('replica', 'stock') }}
