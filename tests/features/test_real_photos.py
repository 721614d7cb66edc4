"""Real photos through `tiir features extract` with the golden detector, and a photo with its regions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.models.frcnn.conftest import golden, golden_detector  # noqa: F401 - fixtures

from tiir.features import FeatureStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiir.data.sources.flickr8k import prepare

    out = tmp_path_factory.mktemp("flickr8k") / "data"
    prepare(shared / "flickr8k", split="test", images=shared / "flickr8k" / "Images").subset(range(8)).save(
        out
    )
    return out


def test_show(
    photos: Path,
    golden_detector: Path,  # noqa: F811
    tmp_path: Path,
    tiir: Callable[..., tuple[int, str, str]],
) -> None:
    (golden_detector / "objects_vocab.txt").write_text("".join(f"thing {i},other\n" for i in range(20)))
    store, picture = tmp_path / "a.h5", tmp_path / "a.png"
    code, _, err = tiir("features", "extract", photos, "-e", f"frcnn:{golden_detector}", "--keep-detections",
                        "--boxes", 10, "-o", store)  # fmt: skip
    assert code == 0, err
    (golden_detector / "objects_vocab.txt").unlink()
    image_id = FeatureStore.open(store).image_ids[3]
    code, out, err = tiir("features", "show", store, image_id, "--out", picture)
    assert code == 0, err
    assert out.count("thing ") == 10
    drawn = np.array(Image.open(picture))
    assert max(drawn.shape[:2]) == 1000
    code, out, _ = tiir("features", "info", store)
    assert code == 0
    assert '"objects": 20' in out
    assert '"0.60": 8' in out
    code, out, _ = tiir("features", "show", store, image_id, "--out", picture, "--top", 2)
    assert out.count("thing ") == 2
    code, _, err = tiir("features", "show", store, "nobody.jpg", "--out", picture)
    assert code != 0
    assert "nobody.jpg" in err
    code, _, err = tiir("features", "extract", photos, "-e", "scenes", "--boxes", 3, "-o", tmp_path / "b.h5")
    assert code != 0
    assert "--boxes does nothing" in err
