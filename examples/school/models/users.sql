{{ config(materialized='versioned', unique_key='user_id') }}

select
    _key,
    {{ typed('id', 'text', required=true) }} as user_id,
    {{ typed('type', 'text', required=true) }} as type,
    {{ typed('name', 'text', required=true) }} as name,
    {{ typed('email', 'text') }} as email,
    {{ typed('classId', 'text') }} as class_id
from {{ source('school', 'users') }}
