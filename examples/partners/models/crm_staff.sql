{{ config(materialized='ephemeral') }}

select
    _key,
    {{ typed('code', 'text', required=true) }} as staff_code,
    {{ typed('name', 'text') }} as full_name,
    {{ typed('email', 'text', transform=as_email(lower=true)) }} as email,
    {{ typed('seats', 'integer') }} as crm_seats
from {{ source('crm', 'users') }}
