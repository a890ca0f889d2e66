{{ config(materialized='versioned', unique_key='subject_id') }}

select
    _key,
    {{ typed('id', 'text', required=true) }} as subject_id,
    {{ typed('name', 'text', required=true) }} as name,
    {{ typed('hours', 'integer') }} as hours_per_week
from {{ source('school', 'subjects') }}
