{{ config(materialized='versioned', unique_key='employee_id', on_missing='mark', history=true) }}

select
    _key,
    {{ typed('id', 'text', required=true) }} as employee_id,
    {{ typed('name.first', 'text', required=true) }} as first_name,
    {{ typed('name.last', 'text', required=true) }} as last_name,
    {{ typed('email', 'text', transform=as_email()) }} as email,
    {{ typed('department', 'text') }} as department,
    {{ typed('hoursPerWeek', 'numeric(4,1)') }} as hours_per_week
from {{ source('staff', 'employees') }}
