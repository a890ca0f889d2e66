{#-
    A word for yes or no, in any case, with blanks around it or none.

    yes, no  lists of words, in the place of true, yes, y, 1, on and false, no, n, 0, off
-#}
{%- macro as_boolean(yes=['true', 'yes', 'y', '1', 'on'], no=['false', 'no', 'n', '0', 'off']) -%}
    {%- set words = {'true': [], 'false': []} -%}
    {%- for truth, given in {'true': yes, 'false': no}.items() -%}
        {%- if given is string or given is mapping or given is not iterable or not given -%}
            {%- do exceptions.raise_compiler_error("as_boolean(): yes and no are lists of words: yes=['ano'], no=['ne']") -%}
        {%- endif -%}
        {%- for word in given -%}
            {%- do words[truth].append(word | string | trim | lower) -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- if words['true'] | select('in', words['false']) | list -%}
        {%- do exceptions.raise_compiler_error("as_boolean(): a word is in both yes and no: " ~ words['true'] | select('in', words['false']) | join(', ')) -%}
    {%- endif -%}
    {%- set whens = [] -%}
    {%- for truth, listed in words.items() -%}
        {%- for word in listed -%}
            {%- do whens.append('when ' ~ _literal(word) ~ " then '" ~ truth ~ "'") -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return({
        'name': 'yes or no',
        'sql': ['case syncline.lower_text(syncline.trim_blanks(', ')) ' ~ whens | join(' ') ~ ' else syncline.refused(', ') end'],
        'types': ['boolean'],
        'is_exact': true,
        'empties': false,
    }) }}
{%- endmacro -%}
