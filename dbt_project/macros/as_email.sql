{#-
    An email address without blanks around it, its domain in lower case.

    lower  all of it in lower case
-#}
{%- macro as_email(lower=false) -%}
    {{ return({
        'name': 'email',
        'sql': ['syncline.email_text(', ', ' ~ ('true' if lower else 'false') ~ ')'],
        'types': ['text'],
        'empties': false,
    }) }}
{%- endmacro -%}
