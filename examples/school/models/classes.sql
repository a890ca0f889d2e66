{{ config(materialized='versioned', unique_key='class_id') }}

select
    _key,
    {{ typed('id', 'text', required=true) }} as class_id,
    {{ typed('name', 'text', required=true) }} as name,
    {{ typed('room', 'integer') }} as room
from {{ source('school', 'classes') }}
