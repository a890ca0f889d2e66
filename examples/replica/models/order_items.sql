{{ config(materialized='versioned', unique_key=['order_id', 'line'], on_missing='keep') }}

select
    _key,
    {{ typed('order_id', 'bigint', required=true) }} as order_id,
    {{ typed('line', 'smallint', required=true) }} as line,
    {{ typed('product_id', 'bigint', required=true) }} as product_id,
    {{ typed('quantity', 'integer', required=true) }} as quantity,
    {{ typed('unit_price', 'numeric(10,2)', required=true) }} as unit_price
from {{ source('replica', 'order_items') }}
