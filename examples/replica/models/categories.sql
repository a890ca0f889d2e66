{{ config(materialized='versioned', unique_key='category_id', on_missing='keep') }}

select
    _key,
    {{ typed('category_id', 'bigint', required=true) }} as category_id,
    {{ typed('name', 'text', required=true) }} as name
from {{ source('replica', 'categories') }}
