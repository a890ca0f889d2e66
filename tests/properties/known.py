"""Defects that the properties have found and that are not mended yet: each is assumed away by its name."""

from __future__ import annotations

THREE_OF_A_KEY_LOSE_THE_LAST = False
"""On the small side, a changed record, the live one and another changed one of one key in one load."""

FIRST_LOAD_KEEPS_TOMBSTONES = True
"""A stream's first load takes tombstones for records."""

OLD_UNIQUE_INDEXES_STAY = True
"""A version that is written in place keeps the unique index of an earlier unique_key."""

PRUNED_IS_TOLD_ONE_LOAD_LATE = True
"""has_pruned() takes a build for readable whose next load's closed revisions are pruned."""

PRUNING_PASSES_PINNED_LOADS = True
"""prune_stream() looks at builds, not at what running runs have pinned."""
