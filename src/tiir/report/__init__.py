"""Tables, exports and pictures of what a Run retrieved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiir.lazy import lazy

if TYPE_CHECKING:
    from tiir.report.build import build_site
    from tiir.report.export import export_run
    from tiir.report.figures import rank_histograms, rank_scatter, recall_curves, save, slice_bars
    from tiir.report.photos import (
        hard_image_retrieval,
        hard_text_retrieval,
        most_ahead,
        sample_hard,
        where_a_beats_b,
    )
    from tiir.report.sheet import contact_sheet, sample_queries
    from tiir.report.tables import csv_table, evaluation_tables, latex_table, markdown_table

__all__ = [
    "build_site",
    "contact_sheet",
    "csv_table",
    "evaluation_tables",
    "export_run",
    "hard_image_retrieval",
    "hard_text_retrieval",
    "latex_table",
    "markdown_table",
    "most_ahead",
    "rank_histograms",
    "rank_scatter",
    "recall_curves",
    "sample_hard",
    "sample_queries",
    "save",
    "slice_bars",
    "where_a_beats_b",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "tiir.report.build": ["build_site"],
        "tiir.report.export": ["export_run"],
        "tiir.report.figures": ["rank_histograms", "rank_scatter", "recall_curves", "save", "slice_bars"],
        "tiir.report.photos": [
            "hard_image_retrieval",
            "hard_text_retrieval",
            "most_ahead",
            "sample_hard",
            "where_a_beats_b",
        ],
        "tiir.report.sheet": ["contact_sheet", "sample_queries"],
        "tiir.report.tables": ["csv_table", "evaluation_tables", "latex_table", "markdown_table"],
    },
)
