"""What objects look like in a notebook: a heading, facts and a table, as plain HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["card"]


def card(heading: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = (), *notes: str) -> str:
    """HTML of an object, for its `_repr_html_`. All text is escaped.

    Args:
        heading: one line.
        facts: by name; those that are None are left out.
        rows: of a table below them, by column; all have the columns of the first.
        notes: lines below.

    Example:
        >>> card("<pets>", {"images": 12000, "judgements": None})
        '<b>&lt;pets&gt;</b><table><tr><th>images</th><td>12,000</td></tr></table>'
    """
    known = [[_cell("th", name), _cell("td", value)] for name, value in facts.items() if value is not None]
    listed = [[_cell("td", value) for value in row.values()] for row in rows]
    heads = [[_cell("th", name) for name in row] for row in rows[:1]]
    lines = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f"<b>{escape(heading)}</b>{_table(known)}{_table(heads + listed)}{lines}"


def _cell(tag: str, value: Any) -> str:
    text = (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:,.2f}"
        if isinstance(value, float)
        else str(value)
    )
    return f"<{tag}>{escape(text)}</{tag}>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = (f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table>{''.join(lines)}</table>" if rows else ""
