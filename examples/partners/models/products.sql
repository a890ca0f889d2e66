{{ config(materialized='versioned', unique_key='asin') }}

select
    _key,
    {{ typed('ASIN', 'text', required=true) }} as asin,
    {{ typed('Partner Code', 'text', required=true) }} as partner_code,
    {{ external_id('partner', 'agency', typed('Partner Code', 'text', required=true)) }} as partner_id,
    {{ typed('Title', 'text') }} as title,
    {{ typed('Price', 'numeric(10,2)', transform=as_currency()) }} as price,
    {{ typed('Launched', 'date', format='DD/MM/YYYY') }} as launched_on,
    {{ typed('Listed', 'text') }} is not null as is_listed
from {{ source('sheet', 'products') }}
