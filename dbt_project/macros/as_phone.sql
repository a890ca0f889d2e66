{#-
    A phone number in E.164: `+420777123456`. What is written between digits is left out, `(0)` too.

    country  where numbers without + or 00 are: a code of ISO 3166 ('CZ'), or a calling code ('+420'), behind which
             numbers stand as they are written; without it only international numbers are taken
-#}
{%- macro as_phone(country=none) -%}
    {%- set rule = _phone_rule(country) -%}
    {{ return({
        'name': 'phone',
        'sql': ['syncline.phone_text(', ', ' ~ rule | join(', ') ~ ')'],
        'types': ['text'],
        'empties': false,
    }) }}
{%- endmacro -%}


{#- As SQL: the calling code, what international numbers begin with beside +, and the pattern of a national number. -#}
{%- macro _phone_rule(country) -%}
    {%- if country is none -%}{{ return(['null', "'00'", 'null']) }}{%- endif -%}
    {%- set wanted = country | string | upper -%}
    {#- The prefix that is dialled within the country, and is no part of the number abroad. -#}
    {%- set patterns = {
        'none': '^(0?[1-9][0-9]+)$',
        '0': '^0?([1-9][0-9]+)$',
        'NANP': '^1?([2-9][0-9]{9})$',
        'RU': '^8?([3-9][0-9]{9})$',
        'BY': '^(?:80)?([1-9][0-9]{8})$',
        'HU': '^(?:06)?([1-9][0-9]{7,8})$',
        'LT': '^[08]?([3-9][0-9]{7})$',
        'TM': '^8?([1-9][0-9]{7})$',
    } -%}
    {%- set code = modules.re.match('[+]?([1-9][0-9]{0,2})$', wanted) -%}
    {%- if code -%}{{ return([_literal(code.group(1)), "'00'", _literal(patterns['none'])]) }}{%- endif -%}
    {%- for kind, countries in _calling_codes().items() if wanted in countries -%}
        {{ return([_literal(countries[wanted]), "'(?:00|011)'" if kind == 'NANP' else "'00'", _literal(patterns[kind])]) }}
    {%- endfor -%}
    {%- do exceptions.raise_compiler_error("as_phone(): '" ~ country ~ "' is no country that it knows; give its calling code: country='+420'") -%}
{%- endmacro -%}


{#- Calling codes by country, by how numbers are dialled within it. -#}
{%- macro _calling_codes() -%}
    {{ return({
        'none': {
            'AD': '376', 'AO': '244', 'AW': '297', 'BF': '226', 'BH': '973', 'BI': '257', 'BJ': '229', 'BN': '673',
            'BT': '975', 'BW': '267', 'BZ': '501', 'CF': '236', 'CG': '242', 'CI': '225', 'CL': '56', 'CM': '237',
            'CR': '506', 'CV': '238', 'CY': '357', 'CZ': '420', 'DJ': '253', 'DK': '45', 'EE': '372', 'ES': '34',
            'FJ': '679', 'GI': '350', 'GL': '299', 'GM': '220', 'GN': '224', 'GQ': '240', 'GR': '30', 'GT': '502',
            'GW': '245', 'GY': '592', 'HK': '852', 'HN': '504', 'HT': '509', 'IS': '354', 'IT': '39', 'KM': '269',
            'KW': '965', 'LI': '423', 'LS': '266', 'LU': '352', 'LV': '371', 'MC': '377', 'ML': '223', 'MO': '853',
            'MR': '222', 'MT': '356', 'MU': '230', 'MV': '960', 'MX': '52', 'MZ': '258', 'NC': '687', 'NE': '227',
            'NI': '505', 'NO': '47', 'OM': '968', 'PA': '507', 'PG': '675', 'PL': '48', 'PT': '351', 'QA': '974',
            'SC': '248', 'SG': '65', 'SM': '378', 'SN': '221', 'SR': '597', 'SV': '503', 'SZ': '268', 'TD': '235',
            'TG': '228', 'TJ': '992', 'TL': '670', 'TN': '216', 'TO': '676', 'UZ': '998', 'VU': '678', 'WS': '685',
        },
        '0': {
            'AE': '971', 'AF': '93', 'AL': '355', 'AM': '374', 'AR': '54', 'AT': '43', 'AU': '61', 'AZ': '994',
            'BA': '387', 'BD': '880', 'BE': '32', 'BG': '359', 'BO': '591', 'BR': '55', 'CD': '243', 'CH': '41',
            'CN': '86', 'CO': '57', 'CU': '53', 'DE': '49', 'DZ': '213', 'EC': '593', 'EG': '20', 'ER': '291', 'ET':
            '251', 'FI': '358', 'FR': '33', 'GA': '241', 'GB': '44', 'GE': '995', 'GH': '233', 'GP': '590', 'HR':
            '385', 'ID': '62', 'IE': '353', 'IL': '972', 'IN': '91', 'IQ': '964', 'IR': '98', 'JO': '962', 'JP':
            '81', 'KE': '254', 'KG': '996', 'KH': '855', 'KP': '850', 'KR': '82', 'LA': '856', 'LB': '961', 'LK':
            '94', 'LR': '231', 'LY': '218', 'MA': '212', 'MD': '373', 'ME': '382', 'MG': '261', 'MK': '389', 'MM':
            '95', 'MN': '976', 'MQ': '596', 'MW': '265', 'MY': '60', 'NA': '264', 'NG': '234', 'NL': '31', 'NP':
            '977', 'NZ': '64', 'PE': '51', 'PH': '63', 'PK': '92', 'PS': '970', 'PY': '595', 'RE': '262', 'RO':
            '40', 'RS': '381', 'RW': '250', 'SA': '966', 'SD': '249', 'SE': '46', 'SI': '386', 'SK': '421', 'SL':
            '232', 'SO': '252', 'SS': '211', 'SY': '963', 'TH': '66', 'TR': '90', 'TW': '886', 'TZ': '255', 'UA':
            '380', 'UG': '256', 'UY': '598', 'VE': '58', 'VN': '84', 'XK': '383', 'YE': '967', 'ZA': '27', 'ZM':
            '260', 'ZW': '263',
        },
        'NANP': {
            'AG': '1', 'AI': '1', 'AS': '1', 'BB': '1', 'BM': '1', 'BS': '1', 'CA': '1', 'DM': '1', 'DO': '1', 'GD':
            '1', 'GU': '1', 'JM': '1', 'KY': '1', 'PR': '1', 'TT': '1', 'US': '1',
        },
        'RU': {'KZ': '7', 'RU': '7'},
        'BY': {'BY': '375'},
        'HU': {'HU': '36'},
        'LT': {'LT': '370'},
        'TM': {'TM': '993'},
    }) }}
{%- endmacro -%}
