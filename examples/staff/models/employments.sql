{{ config(materialized='versioned', unique_key=['employee_id', 'started_on'], on_missing='keep') }}

select
    _key,
    {{ typed('_employees_id', 'text', required=true) }} as employee_id,
    {{ typed('startDate', 'date', required=true) }} as started_on,
    {{ typed('endDate', 'date') }} as ended_on,
    {{ typed('contract', 'text') }} as contract,
    {{ typed('hours', 'numeric(4,1)') }} as hours_per_week,
    {{ typed('salary', 'numeric(10,2)') }} as monthly_salary
from {{ source('staff', 'employments') }}
