{{ config(
    materialized='versioned',
    unique_key='partner_code',
    external_ref={'type': 'partner', 'source': 'agency', 'metadata': ['brand_name']}
) }}

{{ merged(
    sources={'sheet': ref('sheet_partners'), 'crm': ref('crm_partners')},
    fields={
        'partner_code': {},
        'brand_name': {'authority': {'crm': 'reference'}},
        'email': {'priority': ['crm', 'sheet']},
        'phone': {'priority': ['crm']},
        'industry': {'priority': ['crm'], 'authority': 'reference'},
        'tier': {'priority': ['sheet']},
        'onboarded_on': {'priority': ['sheet']},
        'known_since': {'priority': ['crm']},
        'monthly_fee': {'priority': ['sheet']},
        'commission': {'priority': ['sheet']},
        'is_active': {'priority': ['sheet']},
        'manager_code': {'priority': ['sheet']},
        'yearly_fee': {'authority': 'derived', 'value': 'monthly_fee * 12'},
    },
) }}
