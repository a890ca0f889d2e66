"""Brings ordinary models downstream of entities up to what is published."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from syncline import check, control, db
from syncline.dbt import Dbt, Models
from syncline.errors import ModelError, first_of


def follow_up(
    dbt: Dbt, connection: db.Connection, models: Models, entities: Iterable[str], claimed: tuple[int, int] | None
) -> None:
    """Build the ordinary models that read these entities where they are behind what is published.

    Raises ModelError where one fails: what was published stays, and the next run tries again.
    """
    wanted = set(entities)
    fed = {name: asdict(model) for name, model in models.downstream.items() if model.entities & wanted}
    behind = control.models_behind(connection, fed) if fed else {}
    if not behind:
        return
    nodes = dbt.build(list(behind), claimed)
    done = {node["name"] for node in nodes if node["status"] == "success"}
    control.save_models(connection, {name: stamp for name, stamp in behind.items() if name in done})
    errors = check.model_errors(nodes)
    if errors:
        error = first_of(errors)
        raise ModelError(
            f"what was checked is published, but a model downstream failed: {error.message}",
            "Mend it: the next run builds it, whether its entities change or not.",
        )
