"""Tables in files: Parquet, JSON lines or CSV, by the suffix of the name."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from tiir.errors import ConfigError
from tiir.io import atomic_write
from tiir.out import check_file

__all__ = ["SUFFIXES", "check_table", "write_table"]

SUFFIXES = (".parquet", ".jsonl", ".csv")


def check_table(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a name that no table can be written to: before the long work, not after it.

    Raises:
        ConfigError: the suffix is none of `SUFFIXES`; and as `tiir.out.check_file`.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path} says no format", hint=f"end the name with one of: {', '.join(SUFFIXES)}")
    check_file(path, overwrite=overwrite)


def write_table(frame: pd.DataFrame, path: Path | str, *, overwrite: bool = False) -> None:
    """Write a table; columns that hold lists are JSON text in CSV, those that hold dicts in CSV and Parquet.

    Args:
        frame: the table.
        path: file to write; .parquet, .jsonl or .csv says the format.
        overwrite: replace a file that is there.

    Raises:
        ConfigError: as `check_table`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> table = pd.DataFrame({"query": ["a"], "rank": [3], "top": [["b", "c"]]})
        >>> with TemporaryDirectory() as folder:
        ...     write_table(table, Path(folder) / "queries.csv")
        ...     print((Path(folder) / "queries.csv").read_text())
        query,rank,top
        a,3,"[""b"", ""c""]"
        <BLANKLINE>
    """
    path = Path(path)
    check_table(path, overwrite=overwrite)
    with atomic_write(path) as temporary:
        if path.suffix == ".parquet":
            frame = _as_text(frame, dict)  # Parquet has no dict without keys
            frame.to_parquet(temporary, compression="zstd", index=False)
        elif path.suffix == ".jsonl":
            frame.to_json(temporary, orient="records", lines=True, force_ascii=False, double_precision=15)
        else:
            _as_text(frame, dict, list).to_csv(temporary, index=False)


def _as_text(frame: pd.DataFrame, *kinds: type) -> pd.DataFrame:
    held = [name for name in frame.columns if len(frame) and isinstance(frame[name].iloc[0], kinds)]
    texts = {name: frame[name].map(lambda row: json.dumps(row, ensure_ascii=False)) for name in held}
    return frame.assign(**texts)
