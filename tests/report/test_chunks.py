"""Data files: whatever a text holds, the page gets that text and nothing runs."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tiir.errors import DataError
from tiir.report.chunks import data_script, read_data, rounded

TEXTS = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)  # fmt: skip


@pytest.mark.slow
@given(VALUES)
@example({"text": ["</script><script>alert(1)</script>", "<!--", "]]>", "\u2028\u2029", "x" * 10_000]})
@example(["../../etc/passwd", "\0\r\n", "\\u003c", '"); alert(1); ("', "\u202e", "\U0001f600"])
def test_a_block_read_back_is_the_value(value: object) -> None:
    script = data_script("captions", value)
    assert script.startswith('tiir.data("captions",')
    assert script.endswith(");\n")
    assert json.loads(script[len('tiir.data("captions",') : -len(");\n")]) == value
    # No character that ends the script element or, in old engines, a line: but the last.
    assert not re.search("[<\u2028\u2029\r\n\0]", script[:-1])
    script.encode("utf-8")


def test_a_lone_surrogate_is_written_as_an_escape() -> None:
    script = data_script("captions", ["a\ud800b"])
    assert "\\ud800" in script
    assert json.loads(script.removeprefix('tiir.data("captions",')[:-3]) == ["a\ud800b"]


def test_nan_is_refused_and_rounded_makes_it_null() -> None:
    with pytest.raises(ValueError, match="JSON"):
        data_script("site", [math.nan])
    assert rounded([math.nan, -math.inf, -0.000123456, 1.0, 123456.7]) == [None, None, -0.00012346, 1, 123460]


@given(st.floats(-1e6, 1e6), st.integers(1, 9))
def test_rounding_keeps_as_many_digits_as_asked(value: float, digits: int) -> None:
    (short,) = rounded([np.float64(value)], digits)
    assert short == pytest.approx(value, rel=0.5 * 10 ** (1 - digits))


def test_reading_what_is_no_data_file_says_so(tmp_path: Path) -> None:
    good, other, cut = (tmp_path / name for name in ("site.js", "images.js", "queries.js"))
    good.write_text(data_script("site", {"a": 1}))
    assert read_data(good) == {"a": 1}
    other.write_text("alert(1)")
    cut.write_text('tiir.data("queries",{"a":);\n')
    with pytest.raises(DataError, match="no data file"):
        read_data(other)
    with pytest.raises(DataError, match="damaged"):
        read_data(cut)
