-- Which database roles own the control schema, work runs, and read what is published.

create table syncline.roles (
    duty text primary key check (duty in ('owner', 'runner', 'reader')),
    role_name name not null unique
);
comment on table syncline.roles is 'The database roles that grant_roles was last given; empty where one role does everything.';
