"""Which models are entities, by their files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncline.config import entity_names


def make(root: Path, files: dict[str, str], project: str = "") -> set[str]:
    (root / "dbt_project.yml").write_text(f"name: shop\nmodel-paths: [models, more]\n{project}")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return entity_names(root)


@pytest.mark.parametrize(
    "said",
    [
        "{{ config(materialized='versioned', unique_key='id') }}",
        '{{ config(unique_key="id", materialized = "versioned") }}',
        "{{ config({'materialized': 'versioned'}) }}",
        "{{\n  config(\n    materialized=\n      'versioned'\n  )\n}}",
    ],
)
def test_models_say_that_they_are_entities(tmp_path: Path, said: str) -> None:
    """Whatever its quotes and blanks, a model's own word makes it an entity; others are none."""
    files = {"models/people.sql": f"{said}\nselect 1", "models/board.sql": "select 1", "more/deep/visits.sql": said}
    others = {
        "models/table.sql": "{{ config(materialized='table') }} -- not versioned",
        "models/all.yml": "models:\n  - name: board  # no materialized: versioned\n    description: versioned\n",
    }
    assert make(tmp_path, files | others) == {"people", "visits"}


@pytest.mark.parametrize(
    ("project", "yaml"),
    [
        ("models:\n  shop:\n    +materialized: versioned\n", ""),
        ('models: {shop: {"materialized": "versioned"}}\n', ""),
        ("", "models:\n  - name: people\n    config:\n      materialized: versioned\n"),
        ("", "models:\n  - {name: people, config: {materialized: 'versioned'}}\n"),
    ],
)
def test_where_yaml_says_so_all_models_may_be(tmp_path: Path, project: str, yaml: str) -> None:
    """Which models YAML is about is dbt's to judge: all of them count."""
    files = {"models/people.sql": "select 1", "models/board.sql": "select 1", "models/all.yml": yaml}
    assert make(tmp_path, files, project) == {"people", "board"}
