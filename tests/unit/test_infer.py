"""What discover concludes from a sample: types, keys, nested lists, names; and how it edits YAML."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from syncline.discovery.infer import Shape, fits, infer_shape
from syncline.discovery.models import parse_model
from syncline.discovery.names import column_name, entity_name, singular, unique_name
from syncline.discovery.texts import model_text, nested_text
from syncline.discovery.yaml_list import append_items
from syncline.errors import ConfigurationError


def shape_of(*records: Any, name: str = "things", **declared: Any) -> Shape:
    return infer_shape(name, [json.dumps(record).encode() for record in records], **declared)


def type_of(*values: Any, name: str = "value") -> str:
    shape = shape_of(*[{name: value} for value in values])
    return next(column.type for column in shape.columns)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((1, 2, None), "bigint"),
        ((1, 2.5), "numeric"),
        ((2**70,), "numeric"),
        ((True, False), "boolean"),
        ((True, 1), "text"),
        (("2026-01-31", None), "date"),
        (("2026-02-31",), "text"),
        (("2026-01-31T10:00:00Z", "2026-01-31T10:00:00.5+02:00"), "timestamptz"),
        (("2026-01-31 10:00:00",), "timestamp"),
        (("2026-01-31", "2026-01-31T10:00:00Z"), "text"),
        (("6b1f2c60-5b1c-4a43-9d3c-6f2d0c5f9a11",), "uuid"),
        (("1", "2"), "text"),
        (("a", 1), "text"),
        ((None, None), "text"),
        (("", "2026-01-31"), "text"),
        ((["a"], [], [None]), "text[]"),
        ((["a", 1],), "jsonb"),
        (([1, 2],), "jsonb"),
        (([],), "jsonb"),
        (([1], "a"), "jsonb"),
        (({"a": 1}, 1), "jsonb"),
        (({}, {}), "jsonb"),
    ],
)
def test_types(values: tuple[Any, ...], kind: str) -> None:
    """A field's type is the narrowest that holds all values of the sample; a mixture stays text or jsonb."""
    assert type_of(*values) == kind


@pytest.mark.parametrize("name", ["amount", "unitPrice", "total_net", "dayRate"])
def test_money_is_numeric(name: str) -> None:
    """A sum that happens to be whole in the sample is not taken for a whole number."""
    assert type_of(10, 20, name=name) == "numeric"


def test_objects_are_flattened_three_levels_deep() -> None:
    """Nested objects are columns by their path; what is deeper, or keyed by data, stays whole."""
    shape = shape_of({"id": 1, "a": {"b": {"c": {"d": 1}, "Ee": 2}}, "by": {f"k{n}": n for n in range(30)}}, {"id": 2})
    assert [(c.path, c.name, c.type) for c in shape.columns] == [
        ("id", "id", "bigint"),
        ("a.b.c", "a_b_c", "jsonb"),
        ("a.b.Ee", "a_b_ee", "bigint"),
        *[(f"by.k{n}", f"by_k{n}", "bigint") for n in range(30)],
    ]
    maps = [{"id": n, "by": {f"order {n} {m}": m for m in range(3)}} for n in range(10)]
    assert [(c.path, c.type) for c in shape_of(*maps).columns] == [("id", "bigint"), ("by", "jsonb")]


@pytest.mark.parametrize(
    ("records", "key"),
    [
        ([{"id": 1, "code": "a"}, {"id": 2, "code": "b"}], ("id",)),
        ([{"id": 1, "code": "a"}, {"id": 1, "code": "b"}], ("code",)),
        ([{"id": 1, "code": "a"}, {"code": "b"}], ("code",)),
        ([{"id": None, "thing_id": 7}], ("thing_id",)),
        ([{"thingId": "x", "email": "e"}], ("thingId",)),
        ([{"id": 1.5}, {"id": 2.5}], ()),
        ([{"id": True}], ()),
        ([{"id": "1"}, {"id": 1}], ()),
        ([{"name": "a"}, {"name": "b"}], ()),
        ([], ()),
    ],
)
def test_keys(records: list[dict[str, Any]], key: tuple[str, ...]) -> None:
    """The key is a field of a usual name that each record has, with another value in each; else there is none."""
    assert shape_of(*records).key == key


def test_what_the_source_tells_wins() -> None:
    """A declared key and declared types are taken as they are, in a form that a column can have."""
    columns = {
        "n": "character varying",
        "at": "timestamp with time zone",
        "tags": "character varying[]",
        "id": "integer",
    }
    shape = shape_of({"n": "1", "id": 1, "more": 1}, key=["n"], columns=columns)
    assert shape.key == ("n",)
    assert [(c.path, c.type) for c in shape.columns] == [
        ("n", "text"),
        ("at", "timestamptz"),
        ("tags", "text[]"),
        ("id", "integer"),
        ("more", "bigint"),
    ]


def test_lists_of_objects_are_entities() -> None:
    """A list's elements are told apart by their own key where the sample has one, else by their place."""
    shape = shape_of(
        {"id": 1, "lines": [{"sku": "a", "n": 1}, {"sku": "a", "n": 2}], "tags": [{"tagId": 1}, {"tagId": 2}]},
        {"id": 2, "lines": [], "tags": [{"tagId": 1}], "odd": {"own": [{"id": 5}]}},
        name="orders",
    )
    assert [(nested.path, nested.key) for nested in shape.nested] == [
        ("lines", ()),
        ("tags", ("tagId",)),
        ("odd.own", ("id",)),
    ]
    assert [column.path for column in shape.columns] == ["id"]
    lines, tags, own = (nested_text("shop", "orders", shape, nested) for nested in shape.nested)
    assert "unique_key=['order_id', 'place']" in lines
    assert "'strict $.lines[*]', '{}', true) with ordinality as unnested (item, place)" in lines
    assert "unique_key=['order_id', 'tag_id']" in tags
    assert "{{ typed('id', 'bigint', required=true, record='item') }} as id" in own


def test_lists_of_records_without_a_key() -> None:
    """Where only the content tells records apart, their elements are told apart by that and by their place."""
    shape = shape_of({"lines": [{"sku": "a"}]}, {"lines": []})
    assert "unique_key=['_key', 'place']" in nested_text("shop", "things", shape, shape.nested[0])


def test_a_model_reads_back_as_it_was_written() -> None:
    """What discover reads of a model's text is what the model says."""
    shape = shape_of({"id": 1, "address": {"city": "x"}, "lines": [{"sku": 1}]})
    model = parse_model("things", model_text("shop", "things", shape))
    assert model.streams == {("shop", "things")}
    assert [(c.path, c.type, c.name) for c in model.columns] == [
        ("id", "bigint", "id"),
        ("address.city", "text", "address_city"),
    ]
    nested = parse_model("things_lines", nested_text("shop", "things", shape, shape.nested[0]))
    assert nested.lists == {"lines"}
    assert [c.path for c in nested.columns if c.is_of_record] == ["id"]


def test_fields_that_no_path_can_name_are_left_out() -> None:
    """A name with a dot, a quote or a brace is said to be skipped."""
    shape = shape_of({"id": 1, "a.b": 1, "it's": 1, "{}": 1, "null": 1, "zwei Wörter": 1})
    assert shape.skipped == ("a.b", "it's", "{}", "null")
    assert [column.name for column in shape.columns] == ["id", "zwei_worter"]


def test_records_that_are_no_objects_are_left_out() -> None:
    """A sample with broken records still tells what the others look like."""
    shape = infer_shape("things", [b'{"id": 1}', b"[1]", b"{", b"\xff"])
    assert shape.records == ({"id": 1},)


def test_the_cursor_is_found_by_name_and_type() -> None:
    """A field that says when a record changed is found where its values are times."""
    assert shape_of({"id": 1, "updatedAt": "2026-01-31T10:00:00Z"}).cursor == "updatedAt"
    assert shape_of({"id": 1, "updatedAt": "yesterday"}).cursor is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("birthDate", "birth_date"),
        ("HTTPStatus", "http_status"),
        ("address.city", "address_city"),
        ("order", "order_"),
        ("2nd", "_2nd"),
        ("Größe", "groe"),
        ("名前", "field"),
        ("x" * 80, "x" * 50),
    ],
)
def test_column_names(text: str, name: str) -> None:
    """A field's name becomes one that Postgres takes without quotes."""
    assert column_name(text) == name


def test_names_differ() -> None:
    """Names that are taken get a number; a reserved word gets its source before it."""
    assert unique_name("a", {"a", "a_2"}) == "a_3"
    assert len(unique_name("x" * 50, {"x" * 50})) <= 50
    assert entity_name("shop", "order") == "shop_order"
    assert shape_of({"aB": 1, "a_b": 1, "_key": 1}).columns[1].name == "a_b_2"
    plurals = ["categories", "boxes", "orders", "address", "status"]
    assert [singular(name) for name in plurals] == ["category", "box", "order", "address", "status"]


@pytest.mark.parametrize(
    ("value", "kind", "is_fit"),
    [
        ("12", "bigint", True),
        ("1.5", "integer", False),
        ("1e3", "numeric(10,2)", True),
        ("a", "numeric", False),
        ("yes", "boolean", True),
        ("2026-01-31", "timestamptz", True),
        ("31.1.2026", "date", False),
        ("x", "inet", True),
        (None, "bigint", True),
    ],
)
def test_fits(value: Any, kind: str, is_fit: bool) -> None:
    """A value fits a type where typed() would take it."""
    assert fits(value, kind) is is_fit


DECLARED = """\
# ours
sources:
  - name: shop  # the shop
    config:
      meta: {syncline: {connector: http}}

  # the other one
  - name: files
    config: &same
      meta: {syncline: {connector: file}}
    tables:
      - name: visits  # kept
# the end
"""


@pytest.mark.parametrize("place", [0, 1])
def test_yaml_keeps_every_other_line(place: int) -> None:
    """What is added to a file is added, and each line that was there is there, in its order."""
    text = append_items(DECLARED, ["sources", place, "tables"], ["- name: new\n  description: x"], "sources.yml")
    names = [table["name"] for table in yaml.safe_load(text)["sources"][place]["tables"]]
    assert names[-1] == "new"
    lines = iter(text.splitlines())
    assert all(line in lines for line in DECLARED.splitlines())


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "sources: []\n", "sources:\n", "version: 2\n"])
def test_yaml_lists_are_made(text: str) -> None:
    """A list that is missing or empty is made."""
    assert yaml.safe_load(append_items(text, ["sources"], ["- name: a"], "f.yml"))["sources"] == [{"name": "a"}]


def test_yaml_in_braces_is_refused() -> None:
    """Where nothing can be added without touching the rest, the file is left alone."""
    with pytest.raises(ConfigurationError, match=r"f\.yml is written so"):
        append_items("sources: [{name: a}]\n", ["sources", 0, "tables"], ["- name: b"], "f.yml")
