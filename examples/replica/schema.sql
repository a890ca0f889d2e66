-- The shop as it is before the first sync. Everything hangs on arithmetic, so that it is the same wherever it is made.

create table clock (now timestamptz not null);
insert into clock values ('2026-01-05 06:00+00');

create table customers (
    customer_id bigint primary key generated always as identity,
    email text not null unique,
    full_name text not null,
    address jsonb not null,
    updated_at timestamptz not null
);

create table categories (
    category_id bigint primary key generated always as identity,
    name text not null unique
);

create table products (
    product_id bigint primary key generated always as identity,
    category_id bigint not null references categories,
    name text not null,
    price numeric(10, 2) not null,
    labels text[] not null default '{}',
    updated_at timestamptz not null
);

create type order_status as enum ('placed', 'paid', 'shipped', 'cancelled');

create table orders (
    order_id bigint primary key generated always as identity,
    customer_id bigint not null references customers,
    status order_status not null default 'placed',
    placed_at timestamptz not null,
    updated_at timestamptz not null
);
create index on orders (updated_at);

create table order_items (
    order_id bigint not null references orders on delete cascade,
    line smallint not null,
    product_id bigint not null references products,
    quantity integer not null,
    unit_price numeric(10, 2) not null,
    primary key (order_id, line)
);

create table stock_movements (
    movement_id bigint primary key generated always as identity,
    product_id bigint not null references products,
    warehouse text not null,
    quantity integer not null
);

insert into customers (email, full_name, address, updated_at)
select
    'customer' || n || '@shop.example.com' as email,
    (array['Ada', 'Björn', 'Chloé', 'Dario', 'Elif'])[1 + n % 5] || ' '
    || (array['Abebe', 'Müller', 'Núñez', 'O''Brien', 'Sato', 'Zeman', 'Kovač'])[1 + n % 7] as full_name,
    jsonb_build_object('street', 'Market Street ' || n, 'city', (array['Berlin', 'Milan', 'Paris'])[1 + n % 3]) as address,
    clock.now - n * interval '1 hour' as updated_at
from clock, generate_series(1, 200) as n;

insert into categories (name)
values ('Books'), ('Garden'), ('Kitchen'), ('Music'), ('Sports'), ('Toys');

insert into products (category_id, name, price, labels, updated_at)
select
    1 + n % 6 as category_id,
    'Product ' || n as name,
    4.99 + n as price,
    case n % 4 when 0 then array['new', 'hand made'] when 1 then array['sale'] else array[]::text[] end as labels,
    clock.now - n * interval '1 day' as updated_at
from clock, generate_series(1, 80) as n;

insert into orders (customer_id, status, placed_at, updated_at)
select
    1 + n * 7 % 190 as customer_id,
    (array['shipped', 'shipped', 'shipped', 'cancelled'])[1 + n % 4]::order_status as status,
    clock.now - (401 - n) * interval '90 minutes' - interval '1 hour' as placed_at,
    clock.now - (401 - n) * interval '90 minutes' as updated_at
from clock, generate_series(1, 400) as n;

insert into order_items (order_id, line, product_id, quantity, unit_price)
select
    orders.order_id,
    line,
    products.product_id,
    1 + (orders.order_id + line) % 3 as quantity,
    products.price as unit_price
from orders
cross join generate_series(1, 2) as line
inner join products on products.product_id = 1 + (orders.order_id * 3 + line) % 80;

insert into stock_movements (product_id, warehouse, quantity)
select product_id, warehouse, 500 + product_id as quantity
from products
cross join (values ('north'), ('south')) as warehouses (warehouse);
