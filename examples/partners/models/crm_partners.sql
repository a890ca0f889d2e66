{{ config(materialized='ephemeral') }}

select
    _key,
    {{ typed('code', 'text', required=true) }} as partner_code,
    {{ typed('brand', 'text') }} as brand_name,
    {{ typed('email', 'text', transform=as_email(lower=true)) }} as email,
    {{ typed('phone', 'text', transform=as_phone(country='US')) }} as phone,
    {{ typed('industry', 'text') }} as industry,
    {{ typed('created', 'timestamptz', transform=as_timestamp(unix=true)) }} as known_since
from {{ source('crm', 'companies') }}
