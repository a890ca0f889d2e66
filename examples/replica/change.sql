-- What happens in the shop in six hours. It can be run again and again.

update clock set now = now + interval '6 hours';

-- Somebody moves, somebody new comes, and a customer who never ordered is deleted: production keeps the row.
update customers
set address = address || '{"city": "Lisbon"}', updated_at = clock.now
from clock
where customer_id in (select customer_id from customers order by updated_at, customer_id limit 3);

insert into customers (email, full_name, address, updated_at)
select
    'newcomer' || to_char(now at time zone 'UTC', 'YYYYMMDDHH24') || '-' || n || '@shop.example.com' as email,
    'Noor Haddad' as full_name,
    '{"city": "Paris"}' as address,
    now as updated_at
from clock, generate_series(1, 2) as n;

delete from customers
where customer_id = (
    select min(customer_id) from customers where customer_id not in (select customer_id from orders)
);

-- Prices rise, and there is a new product.
update products
set price = round(price * 1.05, 2), labels = array_append(array_remove(labels, 'sale'), 'sale'), updated_at = clock.now
from clock
where product_id in (select product_id from products order by updated_at, product_id limit 4);

insert into products (category_id, name, price, updated_at)
select
    1 as category_id,
    'Novelty of ' || to_char(now at time zone 'UTC', 'YYYY-MM-DD HH24:MI') as name,
    19.90 as price,
    now as updated_at
from clock;

-- What was placed gets paid, then new orders are placed, and the goods leave the north.
update orders
set status = 'paid', updated_at = clock.now
from clock
where status = 'placed';

with placed as (
    insert into orders (customer_id, placed_at, updated_at)
    select newest.customer_id, clock.now as placed_at, clock.now as updated_at
    from clock, (select customer_id from customers order by customer_id desc limit 10) as newest
    returning order_id
),

items as (
    insert into order_items (order_id, line, product_id, quantity, unit_price)
    select placed.order_id, line, products.product_id, 2 as quantity, products.price as unit_price
    from placed
    cross join generate_series(1, 2) as line
    inner join products on products.product_id = line
    returning product_id, quantity
)

insert into stock_movements (product_id, warehouse, quantity)
select product_id, 'north' as warehouse, -quantity as quantity from items;

-- Old orders that were cancelled are cleared away, with their items: production keeps them.
delete from orders
where order_id in (select order_id from orders where status = 'cancelled' order by order_id limit 3);
