{{ config(materialized='ephemeral') }}

select
    _key,
    {{ typed('Partner Code', 'text', required=true) }} as partner_code,
    {{ typed('Brand Name', 'text', required=true, transform=as_text()) }} as brand_name,
    {{ typed('Contact Email', 'text', transform=as_email(lower=true)) }} as email,
    {{ typed('Tier', 'text', transform=as_enum({'Gold': 'gold', 'Silver': 'silver', 'Bronze': 'bronze'})) }} as tier,
    {{ typed('Onboarded', 'date', transform=as_date(formats=['DD/MM/YYYY', 'DD Mon YYYY'])) }} as onboarded_on,
    {{ typed('Monthly Fee', 'numeric(12,2)', transform=as_currency()) }} as monthly_fee,
    {{ typed('Commission', 'numeric(6,4)', transform=as_percentage()) }} as commission,
    {{ typed('Active', 'boolean', transform=as_boolean(yes=['yes'], no=['no'])) }} as is_active,
    {{ typed('Manager', 'text') }} as manager_code
from {{ source('sheet', 'partners') }}
