{{ config(materialized='versioned', unique_key='measurement_id') }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as measurement_id,
    {{ typed('talentId', 'bigint', required=true) }} as talent_id,
    {{ typed('takenOn', 'date', format='DD/MM/YYYY') }} as taken_on,
    {{ typed('height', 'integer') }} as height_cm,
    {{ typed('waist', 'integer') }} as waist_cm,
    {{ typed('hips', 'integer') }} as hips_cm,
    {{ typed('shoe.eu', 'numeric') }} as shoe_size_eu,
    {{ typed('hair', 'text') }} as hair_color,
    {{ typed('eyes', 'text') }} as eye_color,
    {{ typed('updatedAt', 'timestamptz') }} as updated_at
from {{ source('agency', 'measurements') }}
