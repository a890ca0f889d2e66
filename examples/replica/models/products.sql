{{ config(materialized='versioned', unique_key='product_id', on_missing='keep') }}

select
    _key,
    {{ typed('product_id', 'bigint', required=true) }} as product_id,
    {{ typed('category_id', 'bigint', required=true) }} as category_id,
    {{ typed('name', 'text', required=true) }} as name,
    {{ typed('price', 'numeric(10,2)', required=true) }} as price,
    {{ typed('labels', 'text[]') }} as labels,
    {{ typed('updated_at', 'timestamptz') }} as updated_at
from {{ source('replica', 'products') }}
