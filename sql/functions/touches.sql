-- Keys that the next build looks at though no record of theirs changed.

create or replace function syncline.touch(p_entity text, p_keys text[]) returns bigint
language plpgsql
as $$
declare
    v_last bigint;
begin
    -- Numbers must rise in commit order: a build reads up to the newest it can see, and never looks behind it again.
    perform pg_advisory_xact_lock(syncline.lock_class('touch'), hashtext(p_entity));
    with added as (
        insert into syncline.touches (entity, _key)
        select p_entity, touched from unnest(p_keys) as touched
        returning touch_id
    )
    select max(touch_id) into v_last from added;
    return v_last;
end
$$;
comment on function syncline.touch(text, text[]) is
'Makes the next build of the entity look at these keys; returns the number of the last touch.';
