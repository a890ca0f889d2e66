"""Which entities a run is about, and which of them others hold back."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from syncline.dbt import Entity, Models
from syncline.errors import ConfigurationError


def named_entities(models: Models, names: Iterable[str]) -> list[Entity]:
    """Return the entities of these names, in name order; raises ConfigurationError with the known ones."""
    wanted = sorted(set(names))
    for name in wanted:
        if name not in models.entities:
            known = ", ".join(sorted(models.entities)) or "none"
            raise ConfigurationError(f"there is no entity named {name!r}", f"Known entities: {known}.")
    return [models.entities[name] for name in wanted]


def fed_entities(models: Models, streams: Collection[str], entities: Collection[str] = ()) -> list[Entity]:
    """Return these entities and those that these streams feed, however far, in name order."""
    chosen = {
        name for name, entity in models.entities.items() if name in entities or set(streams) & set(entity.streams)
    }
    while True:
        more = {name for name, entity in models.entities.items() if chosen & set(entity.reads)} - chosen
        if not more:
            return [models.entities[name] for name in sorted(chosen)]
        chosen |= more


def feeding_streams(models: Models, entities: Iterable[Entity]) -> set[str]:
    """Return the streams that feed these entities, through those they read too."""
    waiting, seen = [entity.name for entity in entities], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen and name in models.entities:
            seen.add(name)
            waiting += models.entities[name].reads
    return {label for name in seen for label in models.entities[name].streams}


def held_back(entities: Iterable[Entity], failed: Collection[str]) -> set[str]:
    """Return the names of the entities that depend on failed ones, by ref() or a relationships test, however far."""
    held, lost = set[str](), set(failed)
    entities = list(entities)
    while True:
        more = {entity.name for entity in entities if lost & set(entity.parents)} - lost
        if not more:
            return held
        held |= more
        lost |= more
