{{ config(materialized='versioned', unique_key='staff_code') }}

{{ merged(
    sources={'sheet': ref('sheet_staff'), 'crm': ref('crm_staff')},
    fields={
        'staff_code': {},
        'full_name': {},
        'email': {},
        'role': {'priority': ['sheet']},
        'started_on': {'priority': ['sheet']},
        'crm_seats': {'priority': ['crm']},
    },
) }}
