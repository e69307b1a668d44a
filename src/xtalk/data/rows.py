"""The values of one column, row by row: of JSON lines, CSV, Parquet, and data sets of the hub."""

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from xtalk.errors import XtalkError
from xtalk.optional import extras_named

_ROWS = 256  # of a Parquet file at once


def json_rows(lines: Iterable[str], name: str, column: str) -> Iterator[tuple[str, object]]:
    """A column of a file of JSON objects, one a line, and for messages where each stands.

    Errors: XtalkError for a line that is no object with that key.
    """
    example = f'expected an object such as {{"{column}": "..."}}'
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise XtalkError(f"{where} is not JSON; {example}") from error
        if not isinstance(row, dict) or column not in row:
            has = f"; it has {', '.join(map(str, row))}" if isinstance(row, dict) and row else ""
            raise XtalkError(f'{where} has no "{column}" string{has}; {example}')
        yield where, cast(dict[str, object], row)[column]


def csv_rows(lines: Iterable[str], name: str, column: str) -> Iterator[tuple[str, object]]:
    """A column of a CSV file, whose first row names its columns. Errors: XtalkError where it lacks that."""
    csv.field_size_limit(1 << 27)  # a document may be longer than the default, 131,072
    reader = csv.DictReader(lines)
    try:
        _check_column(name, column, list(reader.fieldnames or ()))
        for row in reader:
            where = f"{name}, line {reader.line_num}"
            if row[column] is None:
                raise XtalkError(f"{where} ends before its column {column!r}; expected as many as in line 1")
            yield where, row[column]
    except csv.Error as error:
        raise XtalkError(
            f"{name}, line {reader.line_num} is not CSV: {error}; save the file again"
        ) from error


def parquet_rows(path: Path, column: str) -> Iterator[tuple[str, object]]:
    """A column of a Parquet file. Errors: XtalkError where it lacks that, or is none."""
    with extras_named():
        import pyarrow
        import pyarrow.parquet as parquet
    try:
        with cast(Any, parquet.ParquetFile(path)) as file:
            _check_column(str(path), column, list(file.schema_arrow.names))
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS, columns=[column]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    yield f"{path}, row {number}", value
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise XtalkError(f"{path} cannot be read as Parquet: {reason}; copy or download it again") from error


def hub_rows(source: str, split: str, column: str) -> Iterator[tuple[str, object]]:
    """A column of a data set of the hub, NAME or NAME:CONFIG, streamed: only what is read is downloaded.

    Errors: XtalkError where the hub has no such data set, configuration or split, and where that lacks the
    column.
    """
    name, _, config = source.partition(":")
    try:
        with extras_named():
            import datasets
    except XtalkError as error:
        raise XtalkError(f"{source} is no file or folder here; for a dataset of the hub, {error}") from error
    try:
        rows: Iterable[Any] = datasets.load_dataset(name, config or None, split=split, streaming=True)
        for number, row in enumerate(rows, start=1):
            _check_column(f"dataset {source}", column, list(row))
            yield f"dataset {source}, row {number}", row[column]
    except XtalkError:
        raise
    except Exception as error:  # the hub's client raises errors of many unrelated classes
        reason = (str(error).splitlines() or [""])[0]
        unknown = f"{source} is no file or folder here, and the hub gave no dataset of that name"
        raise XtalkError(f"{unknown}: {type(error).__name__}: {reason}") from error


def has_column(path: Path, lines: Iterable[str] | None, column: str) -> bool:
    """Whether a CSV file, as text, or a Parquet file has a column; False for a file that is neither."""
    with suppress(XtalkError, UnicodeDecodeError, OSError, EOFError):
        rows = parquet_rows(path, column) if lines is None else csv_rows(lines, str(path), column)
        return next(rows, None) is not None
    return False


def _check_column(name: str, column: str, columns: list[str]) -> None:
    if column not in columns:
        raise XtalkError(f'{name} has the columns {columns}; expected a column "{column}"; give --column')
