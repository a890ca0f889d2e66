"""Reads the records of Parquet files, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from syncline.connectors import PAGE_BYTES, Page
from syncline.errors import ConfigurationError, SourceError

_MOST_ROWS = 10_000

_TYPES = {
    "bool": "boolean",
    "int8": "smallint",
    "uint8": "smallint",
    "int16": "smallint",
    "uint16": "integer",
    "int32": "integer",
    "uint32": "bigint",
    "int64": "bigint",
    "uint64": "numeric(20)",
    "halffloat": "real",
    "float": "real",
    "double": "double precision",
}


def read_parquet(content: BinaryIO, place: str) -> Iterator[Page]:
    """Yield the rows as JSON objects, about a megabyte at a time; memory holds parts of a row group.

    Raises SourceError where the file is cut off or damaged, or two columns have one name.
    """
    pyarrow = _pyarrow(place)
    from syncline.connectors.file.arrow_text import write_records

    try:
        file = pyarrow.parquet.ParquetFile(content, pre_buffer=False)
        names = _names(file.schema_arrow, place)
        for batch in file.iter_batches(batch_size=_batch_rows(file.metadata), use_threads=False):
            yield Page(write_records(names, batch.columns))
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(error, place) from None


def parquet_columns(content: BinaryIO, place: str) -> dict[str, str]:
    """Return the Postgres type of each column; raises SourceError as `read_parquet` does."""
    pyarrow = _pyarrow(place)
    try:
        schema = pyarrow.parquet.read_schema(content)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(error, place) from None
    return {name: _postgres_type(pyarrow, schema.field(name).type) for name in _names(schema, place)}


def _pyarrow(place: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigurationError(f"{place}: Parquet needs pyarrow", "pip install 'syncline[parquet]'") from None
    return pyarrow


def _names(schema: Any, place: str) -> list[str]:
    names: list[str] = schema.names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SourceError(f"{place}: two columns are named {twice!r}", "Give each column a name of its own.")
    return names


def _batch_rows(metadata: Any) -> int:
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    size = sum(group.total_byte_size for group in groups) / max(metadata.num_rows, 1)
    # Its text is larger than what is stored, by a factor that nobody knows.
    return int(min(max(PAGE_BYTES / max(size, 1), 1), _MOST_ROWS))


def _damaged(error: Exception, place: str) -> SourceError:
    if isinstance(error, PermissionError):
        return SourceError(f"{place} cannot be read: {error.strerror}", "Check that this user may read it.")
    return SourceError(f"{place} is cut off or damaged: it is no whole Parquet file", "Fetch or write it again.")


def _postgres_type(pyarrow: Any, kind: Any) -> str:
    is_ = pyarrow.types
    if is_.is_dictionary(kind):
        kind = kind.value_type
    families: list[tuple[Any, str]] = [
        (is_.is_nested, "jsonb"),
        (is_.is_date, "date"),
        (is_.is_time, "time"),
        (is_.is_binary, "bytea"),
        (is_.is_large_binary, "bytea"),
        (is_.is_fixed_size_binary, "bytea"),
    ]
    if is_.is_decimal(kind):
        return f"numeric({kind.precision},{kind.scale})"
    if is_.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    family = next((name for is_one, name in families if is_one(kind)), None)
    return family or _TYPES.get(str(kind), "text")
