"""Why a model could not be loaded: the cause, told from what transformers raises on top of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

from tiir.models import source
from tiir.models.source import Source, unloadable

NAME = "some/clip"
ANSWER = cast("Any", httpx.Response(403, request=httpx.Request("GET", "http://x")))
GATED = GatedRepoError("403", response=ANSWER)
DOWN = HfHubHTTPError("503 Server Error", response=ANSWER)


def raised(message: str, cause: BaseException | None) -> OSError:
    problem = OSError(message)
    problem.__cause__ = cause
    return problem


@pytest.mark.parametrize(
    ("problem", "offline", "said"),
    [
        (raised("no", LocalEntryNotFoundError("x")), True, "is offline (HF_HUB_OFFLINE)\n  -> check the name; "),
        (raised("no", LocalEntryNotFoundError("x")), False, f"{ENDPOINT} cannot be reached\n"),
        (raised("no", LocalEntryNotFoundError("x")), False, f"`hf download {NAME} --local-dir FOLDER`"),
        (raised("gated repo.\nMore", GATED), False, f"at {ENDPOINT}/{NAME}, then run `hf auth login`"),
        (raised("no valid identifier\nMore", None), False, f"{NAME}: no valid identifier\n  -> check the id"),
        (DOWN, False, f"cannot load {NAME}: 503 Server Error\n  -> check the network and HF_ENDPOINT, or try"),
        (raised("no CLIPModel", ImportError("needs sentencepiece")), False, "needs sentencepiece\n  -> install"),
    ],
)  # fmt: skip
def test_why_a_hub_model_does_not_load(
    monkeypatch: pytest.MonkeyPatch, problem: OSError, offline: bool, said: str
) -> None:
    monkeypatch.setattr(source, "HF_HUB_OFFLINE", offline)
    assert said in str(unloadable(Source(NAME), problem))


def test_why_a_directory_does_not_load(tmp_path: Path) -> None:
    assert str(unloadable(Source(str(tmp_path)), raised("cut off", None))).endswith(
        "may be incomplete or damaged"
    )
