{{ config(materialized='versioned', unique_key=['board_id', 'portfolio_id']) }}

select
    _key,
    {{ typed('boardId', 'bigint', required=true) }} as board_id,
    {{ typed('portfolioId', 'bigint', required=true) }} as portfolio_id,
    {{ typed('position', 'integer') }} as position
from {{ source('agency', 'boards_portfolios') }}
