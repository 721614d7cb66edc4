"""Data files of the explorer: scripts of one call, since from disk a page may load scripts and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiir.errors import DataError
from tiir.io import read_text

__all__ = ["SITE_NAME", "data_script", "read_data", "rounded"]

SITE_NAME = re.compile(r"(?:site|images|captions|queries|thumbs|(?:lists|wrong)-\d+-\d+)")
"""Names of data files. They are made of positions, never of ids."""
UNSAFE = re.compile("[<\u2028\u2029\ud800-\udfff]")  # ends a script, ends a line in old engines, is no UTF-8
DIGITS = 5  # of scores
MOST = 300  # a power of ten that no digits more make infinite


def data_script(name: str, value: Any) -> str:
    """The JavaScript that hands a value to the page: safe in a file of its own and inside <script>.

    Args:
        name: of the block, one that `SITE_NAME` knows.
        value: ready for JSON; NaN is refused.

    Example:
        >>> data_script("captions", {"text": ["</script>"]})
        'tiir.data("captions",{"text":["\\\\u003c/script>"]});\\n'
    """
    assert SITE_NAME.fullmatch(name), name
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # only strings hold such characters
    return f'tiir.data("{name}",{text});\n'


def read_data(path: Path) -> Any:
    """The value of a data file.

    Raises:
        DataError: it is missing, or no data file of a site.
    """
    text = read_text(path)
    head, foot = f'tiir.data("{path.stem}",', ");\n"
    if not (text.startswith(head) and text.endswith(foot)):
        raise DataError(f"{path} is no data file of a site", hint="write the site again, with --overwrite")
    try:
        return json.loads(text[len(head) : -len(foot)])
    except (ValueError, RecursionError) as problem:
        raise DataError(
            f"{path} is damaged: {problem}", hint="write the site again, with --overwrite"
        ) from None


def rounded(values: npt.ArrayLike, digits: int = DIGITS) -> list[Any]:
    """Numbers with few significant digits, as they read; None for NaN and infinity.

    Args:
        values: of any shape; the lists have it, too.
        digits: that are kept.

    Example:
        >>> rounded([0.123456789, 12.0, float("nan")])
        [0.12346, 12, None]
    """
    exact = np.asarray(values, np.float64)
    finite = np.isfinite(exact)
    size = np.abs(np.where(finite & (exact != 0), exact, 1.0))
    places = np.clip(digits - 1 - np.floor(np.log10(size)).astype(np.int64), -MOST, MOST)
    # Whole numbers by powers of ten that are exact: the quotient is the float nearest to the decimal.
    up, down = 10.0 ** np.maximum(places, 0), 10.0 ** np.maximum(-places, 0)
    short = np.round(np.where(finite, exact, 0.0) * up / down) * down / up
    found = short.astype(object)
    whole = (short == np.floor(short)) & (np.abs(short) < 1e15)
    found[whole] = short[whole].astype(np.int64)
    found[~finite] = None
    nested: list[Any] = found.tolist()
    return nested
