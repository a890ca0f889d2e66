{{ config(materialized='ephemeral') }}

select
    _key,
    {{ typed('Staff Code', 'text', required=true) }} as staff_code,
    {{ typed('Full Name', 'text', required=true) }} as full_name,
    {{ typed('Role', 'text', transform=[
        as_text(case='lower'),
        as_enum(['account manager', 'ads specialist', 'designer', 'team lead'])
    ]) }} as role,
    {{ typed('Email', 'text', transform=as_email(lower=true)) }} as email,
    {{ typed('Started', 'date', format='DD/MM/YYYY') }} as started_on
from {{ source('sheet', 'team') }}
