{{ config(materialized='versioned', unique_key=['class_id', 'user_id', 'subject_id']) }}

select
    _key,
    {{ typed('_classes_id', 'text', required=true) }} as class_id,
    {{ typed('userId', 'text', required=true) }} as user_id,
    {{ typed('subjectId', 'text', required=true) }} as subject_id,
    {{ typed('teacherId', 'text') }} as teacher_id
from {{ source('school', 'enrollments') }}
