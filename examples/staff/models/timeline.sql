select
    employee_id,
    started_on,
    ended_on,
    contract,
    hours_per_week,
    monthly_salary,
    case
        when lag(started_on) over employee is null then 'hired'
        when monthly_salary > lag(monthly_salary) over employee then 'raise'
        else 'new terms'
    end as event,
    monthly_salary - lag(monthly_salary) over employee as salary_change,
    hours_per_week - lag(hours_per_week) over employee as hours_change
from {{ ref('employments') }}
window employee as (partition by employee_id order by started_on)
