"""A Run in the formats of other tools: TREC, the original study's npz, CSV, Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from tiir.data.dataset import Dataset
from tiir.data.protocols import Gallery, resolve
from tiir.errors import ProtocolError, RunError
from tiir.io import atomic_write
from tiir.metrics.ranking import rank_run
from tiir.metrics.retrieve import Direction, retrieve
from tiir.out import check_file, check_out
from tiir.scoring.run import Run

__all__ = ["Format", "export_run"]

Format = Literal["trec", "npz", "csv", "parquet"]
SIDES: tuple[Direction, Direction] = ("i2t", "t2i")


def export_run(
    run: Run,
    dataset: Dataset,
    out: Path | str,
    *,
    format: Format,
    protocol: str = "own",
    depth: int = 100,
    overwrite: bool = False,
) -> list[Path]:
    """Write what a Run retrieved in the format of another tool.

    - `trec`: in the folder `out`, `{i2t,t2i}.run` (`query Q0 candidate rank score tag`, `depth` candidates a
      query) and `{i2t,t2i}.qrels`, as trec_eval, ranx and ir_measures read them. Tools that sort by score
      again break ties by their own rule.
    - `npz`: the original study's keys: `i2t_ranks`, `t2i_ranks` (0-based), `labels` and `logits`
      (images x captions, the whole matrix).
    - `csv`, `parquet`: a row a query and retrieved candidate: direction, query_id, rank, candidate_id,
      score, positive.

    Args:
        run: the scores.
        dataset: its data set.
        out: the file (trec: the folder) to write.
        format: see above.
        protocol: the gallery; one with several folds is refused.
        depth: candidates a query.
        overwrite: replace a file (trec: a folder's files) that is there.

    Returns:
        The files written.

    Raises:
        ProtocolError: the protocol has several galleries.
        RunError: the target exists, a TREC id holds white space, or npz cannot say what the protocol asks.
    """
    run.check(dataset)
    galleries = resolve(protocol, dataset)
    if len(galleries) != 1:
        raise ProtocolError(
            f"{protocol} has {len(galleries)} galleries, an export holds one",
            hint="export with --protocol own",
        )
    gallery, out = galleries[0], Path(out)
    if format == "trec":
        check_out(
            out, "files", finished=out.is_dir() and any(out.iterdir()), overwrite=overwrite, error=RunError
        )
    else:
        check_file(out, overwrite=overwrite, error=RunError)
    if format == "npz":
        n_queries = len(gallery.image_queries), len(gallery.caption_queries)
        if gallery.i2t is not gallery.t2i or n_queries != gallery.i2t.shape:
            raise RunError(
                f"the study's npz cannot hold {protocol}: its queries or positives differ by direction",
                hint="export as trec, csv or parquet",
            )
        return [_write_study(run, dataset, gallery, out)]
    tables = {side: _table(run, dataset, gallery, side, depth) for side in SIDES}
    if format == "trec":
        return [
            path
            for side in SIDES
            for path in _write_trec(tables[side], side, gallery, dataset, run.name, out)
        ]
    return [_write_rows(tables, out, format)]


def _ids(dataset: Dataset, gallery: Gallery) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "image": np.array(dataset.image_ids, object)[gallery.images],
        "caption": np.array(dataset.caption_ids, object)[gallery.captions],
    }


def _table(run: Run, dataset: Dataset, gallery: Gallery, side: Direction, depth: int) -> dict[str, Any]:
    queries = gallery.image_queries if side == "i2t" else gallery.caption_queries
    found, scores = retrieve(run, gallery, side, queries, depth=depth)  # (q, depth) both
    ids = _ids(dataset, gallery)
    own, other = ("image", "caption") if side == "i2t" else ("caption", "image")
    positives = gallery.i2t if side == "i2t" else gallery.t2i.T
    n_candidates = positives.shape[1]
    positive_keys = positives.image * n_candidates + positives.caption
    return {
        "direction": [side] * found.size,
        "query_id": np.repeat(ids[own][queries], found.shape[1]),
        "rank": np.tile(np.arange(1, found.shape[1] + 1), len(queries)),
        "candidate_id": ids[other][found.ravel()],
        "score": scores.ravel(),
        "positive": np.isin((queries[:, None] * n_candidates + found).ravel(), positive_keys),
    }


def _write_trec(
    table: dict[str, Any], side: Direction, gallery: Gallery, dataset: Dataset, tag: str, out: Path
) -> list[Path]:
    ids = _ids(dataset, gallery)
    for kind, values in ids.items():
        bad = next((value for value in values if not value or any(c.isspace() for c in value)), None)
        if bad is not None:
            raise RunError(
                f"TREC files separate columns by white space, but {kind} id {bad!r} holds some",
                hint="export as csv or parquet, or prepare the data set with other ids",
            )
    tag = "_".join(tag.split()) or "tiir"
    run_path, qrels_path = out / f"{side}.run", out / f"{side}.qrels"
    with atomic_write(run_path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        columns = ("query_id", "candidate_id", "rank", "score")
        for query, candidate, rank, score in zip(*(table[key] for key in columns), strict=True):
            file.write(f"{query} Q0 {candidate} {rank} {score:.9g} {tag}\n")
    positives = gallery.i2t if side == "i2t" else gallery.t2i
    rows, columns_ = (ids["image"][positives.image], ids["caption"][positives.caption])
    if side == "t2i":
        rows, columns_ = columns_, rows
    with atomic_write(qrels_path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for query, candidate in zip(rows, columns_, strict=True):
            file.write(f"{query} 0 {candidate} 1\n")
    return [run_path, qrels_path]


def _write_study(run: Run, dataset: Dataset, gallery: Gallery, out: Path) -> Path:
    ranks = rank_run(run, dataset, [gallery])
    labels = np.zeros(gallery.i2t.shape, np.int8)
    labels[gallery.i2t.image, gallery.i2t.caption] = 1
    logits = run.block(gallery.images, gallery.captions)
    with atomic_write(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, i2t_ranks=ranks.i2t - 1, t2i_ranks=ranks.t2i - 1, labels=labels, logits=logits)
    return out


def _write_rows(tables: dict[Direction, dict[str, Any]], out: Path, format: Format) -> Path:
    import pyarrow as pa

    table = pa.concat_tables([pa.table(columns) for columns in tables.values()])
    with atomic_write(out) as temporary:
        if format == "csv":
            import pyarrow.csv

            pyarrow.csv.write_csv(table, temporary)
        else:
            import pyarrow.parquet

            pyarrow.parquet.write_table(table, temporary, compression="zstd")
    return out
