"""Defects that the properties have found and that are not mended yet: each is assumed away by its name."""

from __future__ import annotations

FIRST_LOAD_KEEPS_TOMBSTONES = False
"""A stream's first load takes tombstones for records."""

OLD_UNIQUE_INDEXES_STAY = False
"""A version that is written in place keeps the unique index of an earlier unique_key."""

PRUNED_IS_TOLD_ONE_LOAD_LATE = False
"""has_pruned() takes a build for readable whose next load's closed revisions are pruned."""

PRUNING_PASSES_PINNED_LOADS = False
"""prune_stream() looks at builds, not at what running runs have pinned."""

KEY_AS_UNIQUE_KEY_FAILS = False
"""A unique_key of _key alone names a column twice in reject_collisions()."""

A_NEW_UNIQUE_KEY_MULTIPLIES_COUNTS = False
"""count_changes() joins on the unique_key alone, which rows of a version built under another one may give twice."""
