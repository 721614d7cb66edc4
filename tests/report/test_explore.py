"""Starting the explorer: what is refused before any work, and how it listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tiir.data.dataset import Dataset
from tiir.errors import ConfigError
from tiir.report.explore import listen, new_token
from tiir.report.live import live_runs
from tiir.scoring.run import Run


def test_a_taken_port_is_said_at_once() -> None:
    with listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1, port {port}"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()
    for host in ("192.0.2.1", "no such host", "x" * 300):
        with pytest.raises(ConfigError, match="cannot listen on"):
            listen(host, 0)


def test_a_token_where_others_reach_the_server() -> None:
    assert new_token("127.0.0.1") is new_token("::1") is new_token("localhost") is None
    tokens = {new_token(host) for host in ("0.0.0.0", "::", "10.0.0.5", "my-host")}
    assert len(tokens) == 4
    assert all(token is not None and len(token) >= 32 for token in tokens)


def test_re_ranking_needs_features_and_an_lxmert(colours: tuple[Dataset, Run], tmp_path: Path) -> None:
    data, run = colours
    with pytest.raises(ConfigError, match="needs the images' region features"):
        live_runs([run], data, reranker="lxmert:somewhere")


def test_mistakes_end_before_the_work(colours: tuple[Dataset, Run], tiir: Any, tmp_path: Path) -> None:
    _, run = colours
    site = tmp_path / "taken"
    site.mkdir()
    (site / "mine.txt").write_text("mine")
    code, _, notes = tiir("explore", run.path, "--port", 0, "--site", site, "--resamples", 0)
    assert code == 2
    assert "not part of a site" in notes
    assert [path.name for path in site.iterdir()] == ["mine.txt"]
    code, _, notes = tiir("explore", run.path, "--port", 0, "--judgements", tmp_path / "no" / "j.jsonl")
    assert code == 2
    assert "there is no folder" in notes
    (tmp_path / "j.jsonl").write_text("my notes\n")
    code, _, notes = tiir("explore", run.path, "--port", 0, "--judgements", tmp_path / "j.jsonl")
    assert code == 1
    assert "line 1" in notes
    with listen("127.0.0.1", 0) as bound:
        code, _, notes = tiir("explore", run.path, "--port", bound.getsockname()[1])
    assert code == 2
    assert "cannot listen" in notes
