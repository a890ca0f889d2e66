{#-
    One row for each _key of several typed staging models, field by field.

    sources   name to ref() of an ephemeral staging model, in the order of their priority; or to
              {'model': ref(...), 'active': false}, which switches the source off
    fields    name to settings:
              priority    the sources that give the field, highest first; all, in the order of `sources`, if left out
              authority   source_of_truth (the default), reference or derived; or a mapping of sources to the first two
              value       of a derived field: SQL over the other fields
              active      false switches the field off: no source gives it

    A source of truth overwrites: of those that have a value, the highest wins. A reference fills a field that no source
    of truth has a value for, and only when the row is new. syncline.build settles that: the column of such a field has
    what the sources of truth say, `_new_<field>` what a new row takes, and `_conflicts` on what sources disagree.
-#}
{%- macro merged(sources, fields) -%}
    {%- set plan = _merge_plan(sources, fields) -%}
    /* syncline:merge {{ tojson(plan.mark) }} */
    select
        merged.*
        {%- for name, value in plan.derived.items() %},
        ({{ value }}) as {{ adapter.quote(name) }}
        {%- endfor %}
    from (
        select
            {{ _coalesced(plan.active, '_key') }} as _key
            {%- for name, field in plan.fields.items() %},
            {{ _merged_value(name, field.truths, field.stand_in) }} as {{ adapter.quote(name) }}
            {%- if field.keeps %},
            {{ _merged_value(name, field.references, field.stand_in) }} as {{ adapter.quote('_new_' ~ name) }}
            {%- endif -%}
            {%- endfor %},
            {{ _merge_conflicts(plan) }} as _conflicts
        from
            {%- for name in plan.active %}
            {{ 'full join ' if not loop.first }}{{ plan.relations[name] }} as {{ adapter.quote(name) }}
            {%- if not loop.first %} on {{ adapter.quote(name) }}._key = {{ _coalesced(plan.active[:loop.index0], '_key') }}{% endif -%}
            {%- endfor %}
    ) as merged
{%- endmacro -%}


{%- macro _merge_plan(sources, fields) -%}
    {%- set relations = {} -%}
    {%- set active = [] -%}
    {%- for name, source in sources.items() -%}
        {%- set settings = {'model': source} if source is string or source.identifier is defined else source -%}
        {%- do _refuse_unknown('the source ' ~ name, settings, ['model', 'active']) -%}
        {%- if not settings.model or settings.model is string -%}{%- do _merge_error('the source ' ~ name ~ ' names no staging model: give ref() of one') -%}{%- endif -%}
        {%- do relations.update({name: settings.model}) -%}
        {%- if settings.get('active', true) -%}{%- do active.append(name) -%}{%- endif -%}
    {%- endfor -%}
    {%- if not active -%}{%- do _merge_error('no source is active') -%}{%- endif -%}
    {%- set merged_fields = {} -%}
    {%- set derived = {} -%}
    {%- set used = [] -%}
    {%- for name, settings in fields.items() -%}
        {%- do _check_field(name, settings, relations) -%}
        {%- if settings.get('authority') == 'derived' -%}
            {%- do derived.update({name: settings.value}) -%}
        {%- else -%}
            {%- set priority = settings.get('priority', relations.keys() | list) -%}
            {%- set authority = settings.get('authority', 'source_of_truth') -%}
            {%- set truths = [] -%}
            {%- set references = [] -%}
            {%- for source in priority if source in active and settings.get('active', true) -%}
                {%- set word = authority.get(source, 'source_of_truth') if authority is mapping else authority -%}
                {%- do (references if word == 'reference' else truths).append(source) -%}
            {%- endfor -%}
            {%- do used.extend(priority) -%}
            {#- A null of the field's type. To read a source once more would keep Postgres from looking into its query. -#}
            {%- set joined = priority | select('in', active) | first -%}
            {%- set stand_in = '(case when false then ' ~ adapter.quote(joined) ~ '.' ~ adapter.quote(name) ~ ' end)' if joined
                else '(select off.' ~ adapter.quote(name) ~ ' from ' ~ relations[priority[0]] ~ ' as off where false)' -%}
            {#- It keeps what it has, too, while its references are switched off. -#}
            {%- set words = authority.values() | list if authority is mapping else [authority] -%}
            {%- set keeps = 'reference' in words and settings.get('active', true) -%}
            {%- do merged_fields.update({name: {'truths': truths, 'references': references, 'keeps': keeps, 'stand_in': stand_in}}) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for name in relations if name not in used -%}
        {%- do _merge_error('no field takes anything from the source ' ~ name ~ ': name it in a priority, or leave it out') -%}
    {%- endfor -%}
    {%- set mark = {'sources': {}, 'fields': {}, 'derived': derived} -%}
    {%- for name in relations -%}{%- do mark.sources.update({name: relations[name] | string}) -%}{%- endfor -%}
    {%- for name, field in merged_fields.items() -%}
        {%- do mark.fields.update({name: {'truths': field.truths, 'references': field.references, 'keeps': field.keeps}}) -%}
    {%- endfor -%}
    {{ return({'relations': relations, 'active': active, 'fields': merged_fields, 'derived': derived, 'mark': mark}) }}
{%- endmacro -%}


{%- macro _check_field(name, settings, relations) -%}
    {%- set where = 'the field ' ~ name -%}
    {%- if settings is not mapping -%}{%- do _merge_error(where ~ ' has ' ~ settings ~ ' for its settings: give a mapping, {} for none') -%}{%- endif -%}
    {%- if name.startswith('_') -%}{%- do _merge_error(where ~ ' begins with an underscore: such columns are made here') -%}{%- endif -%}
    {%- set authority = settings.get('authority', 'source_of_truth') -%}
    {%- if authority == 'derived' -%}
        {%- do _refuse_unknown(where ~ ', which is derived,', settings, ['authority', 'value']) -%}
        {%- if not settings.value or '*/' in settings.value -%}{%- do _merge_error(where ~ " is derived and needs a 'value': SQL over the other fields") -%}{%- endif -%}
    {%- else -%}
        {%- do _refuse_unknown(where, settings, ['priority', 'authority', 'active']) -%}
        {%- set priority = settings.get('priority', relations.keys() | list) -%}
        {%- if priority is string or priority is mapping or not priority -%}
            {%- do _merge_error(where ~ ' has ' ~ priority ~ ' for its priority: list its sources, the highest first') -%}
        {%- endif -%}
        {%- if priority | unique | list | length != priority | length -%}
            {%- do _merge_error(where ~ ' names a source twice in its priority (' ~ priority | join(', ') ~ '): each has one place') -%}
        {%- endif -%}
        {%- do _refuse_sources(where ~ ' has in its priority', priority, relations.keys() | list) -%}
        {%- if authority is mapping -%}
            {%- do _refuse_sources(where ~ ' has in its authority', authority.keys() | list, priority) -%}
        {%- endif -%}
        {%- for word in (authority.values() if authority is mapping else [authority]) if word not in ['source_of_truth', 'reference'] -%}
            {%- do _merge_error(where ~ " has the authority '" ~ word ~ "'; it can be source_of_truth, reference or derived") -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}


{%- macro _refuse_unknown(where, settings, known) -%}
    {%- for key in settings if key not in known -%}
        {%- do _merge_error(where ~ " has an unknown setting '" ~ key ~ "'; it can have " ~ known | join(', ')) -%}
    {%- endfor -%}
{%- endmacro -%}


{%- macro _refuse_sources(where, names, known) -%}
    {%- for name in names if name not in known -%}
        {%- do _merge_error(where ~ " '" ~ name ~ "', which is not one of its sources: " ~ known | join(', ')) -%}
    {%- endfor -%}
{%- endmacro -%}


{%- macro _merge_error(message) -%}
    {%- do exceptions.raise_compiler_error(model.name ~ ': merged(): ' ~ message) -%}
{%- endmacro -%}


{%- macro _coalesced(names, column) -%}
    {%- set values = [] -%}
    {%- for name in names -%}{%- do values.append(adapter.quote(name) ~ '.' ~ (column if column == '_key' else adapter.quote(column))) -%}{%- endfor -%}
    {{ values[0] if values | length == 1 else 'coalesce(' ~ values | join(', ') ~ ')' }}
{%- endmacro -%}


{%- macro _merged_value(name, names, stand_in) -%}
    {{ _coalesced(names, name) if names else stand_in }}
{%- endmacro -%}


{#- What each source says of the fields on which any two disagree; of all fields for the keys that are to be explained. -#}
{%- macro _merge_conflicts(plan) -%}
    {%- set explains = 'syncline.explains(' ~ _coalesced(plan.active, '_key') ~ ')' -%}
    {%- set tests = [] -%}
    {%- set parts = [] -%}
    {%- for name, field in plan.fields.items() -%}
        {%- set names = field.truths + field.references -%}
        {%- set pairs = [] -%}
        {%- for one in names -%}
            {%- for other in names[loop.index:] -%}
                {%- do pairs.append('syncline.differ(' ~ adapter.quote(one) ~ '.' ~ adapter.quote(name) ~ ', ' ~ adapter.quote(other) ~ '.' ~ adapter.quote(name) ~ ')') -%}
            {%- endfor -%}
        {%- endfor -%}
        {%- set said = [] -%}
        {%- for source in names -%}{%- do said.append(_literal(source) ~ ', ' ~ adapter.quote(source) ~ '.' ~ adapter.quote(name)) -%}{%- endfor -%}
        {%- if names -%}
            {%- set test = (pairs + [explains]) | join(' or ') -%}
            {%- do tests.extend(pairs) -%}
            {%- do parts.append(_literal(name) ~ ', case when ' ~ test ~ ' then jsonb_build_object(' ~ said | join(', ') ~ ') end') -%}
        {%- endif -%}
    {%- endfor -%}
    case when {{ (tests + [explains]) | join(' or ') }} then {{ _built(parts) }} end
{%- endmacro -%}


{#- A function takes 100 arguments at most. -#}
{%- macro _built(parts) -%}
    {%- set objects = [] -%}
    {%- for some in parts | batch(50) -%}{%- do objects.append('jsonb_build_object(' ~ some | join(', ') ~ ')') -%}{%- endfor -%}
    {{ '(' ~ objects | join(' || ') ~ ')' if objects else "'{}'::jsonb" }}
{%- endmacro -%}
