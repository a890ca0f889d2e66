-- A view, so that it follows every publish and rollback at once.
{{ config(materialized='view') }}

select
    boards.board_id,
    boards.title as board_title,
    boards.slug as board_slug,
    boards_talents.position,
    talents.talent_id,
    talents.name as talent_name,
    talents.slug as talent_slug,
    talents.city,
    talents.is_bookable
from {{ ref('boards') }} as boards
inner join {{ ref('boards_talents') }} as boards_talents on boards.board_id = boards_talents.board_id
inner join {{ ref('talents') }} as talents on boards_talents.talent_id = talents.talent_id
where boards.is_public
