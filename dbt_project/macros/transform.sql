{#-
    The transforms of typed(). Each is made by a macro as_<name>(), which returns

    name        how messages name it: `not a valid numeric as currency`
    sql         a list of the parts of an SQL expression around the text; it gives null for null, chr(26) for what it
                does not take, and never fails
    types       the families of types that it is for; left out: all but arrays and JSON
    is_exact    its text has the one form that its types take on every server: nothing but a cast is left to do
    refuses     it gives chr(26) for some texts (true)
    empties     it gives null for some texts (true)
    is_local    it reads numbers in a local form: a JSON number is none of them, and passes as it is (false)
    reads_json  it reads the JSON value in the place of its text (false)
-#}
{%- macro _read_transforms(type, format, transform) -%}
    {%- if transform is none -%}{{ return([]) }}{%- endif -%}
    {%- set transforms = [transform] if transform is mapping or transform is undefined else transform -%}
    {%- if transforms is iterable and transforms is not string -%}
        {%- if transforms | select('undefined') | list -%}
            {%- do _refuse_unknown_transform() -%}
        {%- endif -%}
    {%- endif -%}
    {%- if transforms is string or transforms is callable or transforms is not iterable
        or transforms | select('mapping') | list | length != transforms | list | length or not transforms -%}
        {%- do exceptions.raise_compiler_error("typed(): a transform is a call such as as_text(), or a list of them") -%}
    {%- endif -%}
    {%- if format -%}
        {%- do exceptions.raise_compiler_error("typed(): format is a transform of its own; use transform=as_date(formats=['" ~ format ~ "'])") -%}
    {%- endif -%}
    {%- set family = _type_family(type) -%}
    {%- set last = transforms | last -%}
    {%- if (family in ('array', 'json') if 'types' not in last else family not in last.types) -%}
        {%- do exceptions.raise_compiler_error("typed(): " ~ last.name ~ " is no transform for " ~ type) -%}
    {%- endif -%}
    {%- for one in transforms -%}
        {%- if one.get('reads_json') and transforms | length > 1 -%}
            {%- do exceptions.raise_compiler_error("typed(): " ~ one.name ~ " stands alone, in no list of transforms") -%}
        {%- endif -%}
        {%- if modules.re.search('[{}]|[*]/', one.name) -%}
            {%- do exceptions.raise_compiler_error("typed(): the name of a transform or a format has no braces and no end of a comment: " ~ one.name) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(transforms) }}
{%- endmacro -%}


{#- dbt takes a call of what is not there for nothing, without its name: that is read in the model. -#}
{%- macro _refuse_unknown_transform() -%}
    {%- set known = modules.re.findall('\\bas_[a-z]+\\b', context.keys() | select('string') | sort | join(' ')) -%}
    {%- set called = modules.re.findall('\\b(as_\\w+)\\s*\\(', model.raw_code) | reject('in', known) | unique | list -%}
    {%- do exceptions.raise_compiler_error("typed(): there is no transform " ~ (called | join(', ') or 'of the name given') ~ "; there are " ~ known | join(', ')) -%}
{%- endmacro -%}


{%- macro _type_family(type) -%}
    {%- set kind = modules.re.sub('\\s+', ' ', type | trim | lower) -%}
    {%- if modules.re.search('(\\]|\\barray)$', kind) -%}{{ return('array') }}{%- endif -%}
    {%- if modules.re.match('(numeric|decimal|dec|real|float4|float8|float|double precision)( ?[(].*)?$', kind) -%}{{ return('number') }}{%- endif -%}
    {%- if modules.re.match('(smallint|int2|integer|int|int4|bigint|int8)$', kind) -%}{{ return('integer') }}{%- endif -%}
    {%- if kind == 'date' -%}{{ return('date') }}{%- endif -%}
    {%- if modules.re.match('timestamptz|timestamp.* with time zone', kind) -%}{{ return('timestamptz') }}{%- endif -%}
    {%- if modules.re.match('timestamp', kind) -%}{{ return('timestamp') }}{%- endif -%}
    {%- if kind in ('boolean', 'bool') -%}{{ return('boolean') }}{%- endif -%}
    {%- if kind in ('json', 'jsonb') -%}{{ return('json') }}{%- endif -%}
    {%- if kind == 'uuid' -%}{{ return('uuid') }}{%- endif -%}
    {%- if modules.re.match('(text|citext|varchar|character varying|char|character|bpchar)( ?[(].*)?$', kind) -%}{{ return('text') }}{%- endif -%}
    {{ return('other') }}
{%- endmacro -%}


{%- macro _transformed(transforms, path, record) -%}
    {%- set json = _json_value(path, record) -%}
    {%- set made = namespace(sql=_json_text(path, record)) -%}
    {%- for one in transforms -%}
        {%- if one.get('reads_json') -%}
            {%- set made.sql = one.sql | join(json) -%}
        {%- elif one.get('is_local') -%}
            {%- set made.sql = "case when jsonb_typeof(" ~ json ~ ") = 'number' then " ~ made.sql ~ " else " ~ one.sql | join(made.sql) ~ " end" -%}
        {%- else -%}
            {%- set made.sql = one.sql | join(made.sql) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ made.sql }}
{%- endmacro -%}


{#- `missing` rejects a value that a transform has made null as one that is missing. -#}
{%- macro _checked(transforms, value, type, required, rejected, missing) -%}
    {%- set last = transforms | last -%}
    {%- set family = _type_family(type) -%}
    {%- set may_refuse = transforms | rejectattr('refuses', 'false') | list | length > 0 -%}
    {%- set may_empty = transforms | rejectattr('empties', 'false') | list | length > 0 -%}
    {%- set if_null = missing if may_empty else rejected -%}
    {%- if type | trim | lower == 'text' -%}
        {%- if required -%}
            coalesce({{ 'syncline.unless_refused(' ~ value ~ ')' if may_refuse else value }}, {{ if_null }})
        {%- elif may_refuse -%}
            coalesce(syncline.unless_refused({{ value }}), case when syncline.is_refused({{ value }}) then {{ rejected }} end)
        {%- else -%}
            {{ value }}
        {%- endif -%}
    {%- else -%}
        {%- if last.get('is_exact') -%}
            {%- set test = "syncline.is_valid(" ~ value ~ ", " ~ _literal(type) ~ ", " ~ _literal(last.name) ~ ")" -%}
        {%- else -%}
            {%- set test = "syncline.is_valid(" ~ value ~ ", " ~ _literal(type) ~ ") is not false" -%}
        {%- endif -%}
        {#- Types that may take any text are asked. -#}
        {%- if may_refuse and family in ('text', 'other') -%}
            {%- set test = "syncline.is_refused(" ~ value ~ ") is not true and " ~ test -%}
        {%- endif -%}
        {%- if required -%}
            coalesce(case when {{ test }} then ({{ value }})::{{ type }} end, {{ if_null }}::{{ type }})
        {%- else -%}
            case when {{ test }} then ({{ value }})::{{ type }} else {{ rejected }}::{{ type }} end
        {%- endif -%}
    {%- endif -%}
{%- endmacro -%}
