"""Where region features come from: what a FeatureStore says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tiir.revisions import known

__all__ = ["FeatureInfo"]


class FeatureInfo(BaseModel):
    """Where region features come from.

    Args:
        extractor: what made them, such as "grid:microsoft/resnet-50" or "bottom-up-attention".
        weights: content hash or commit of the extractor's weights.
        colour: channel order of the extractor's input, "rgb" or "bgr"; the wrong one ruins features in silence.
        boxes: what the four numbers of a box are.
        source: the file or data set they were made from.
        dataset_fingerprint: of the data set whose images these are.
        versions: of the libraries that took part.
        created: when, ISO 8601 in UTC.
        notes: what else decides the numbers.
        names: of object and attribute ids, where detections are kept.
        dataset_path: where the data set lay.
        skipped: images that could not be read, with the reason.

    Example:
        >>> FeatureInfo(extractor="scenes").boxes
        'normalised x1 y1 x2 y2'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    extractor: str
    weights: str | None = None
    colour: Literal["rgb", "bgr"] | None = None
    boxes: str = "normalised x1 y1 x2 y2"
    source: str = ""
    dataset_fingerprint: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    created: str = ""
    notes: dict[str, Any] = Field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    dataset_path: str = ""
    skipped: dict[str, str] = Field(default_factory=dict)

    _weights = field_validator("weights", mode="before")(known)

    @property
    def origin(self) -> dict[str, str | None]:
        """What a model has to see again: extractor, weights and colour."""
        return self.model_dump(include={"extractor", "weights", "colour"})

    def difference(self, origin: Mapping[str, str | None]) -> str | None:
        """The key in which another origin differs, None where it does not.

        What is unknown on either side is no difference; the same weights may have several names.

        Example:
            >>> FeatureInfo(extractor="grid:a", weights="1").difference({"extractor": "grid:b", "weights": "1"})
            >>> FeatureInfo(extractor="grid:a", colour="rgb").difference({"extractor": "grid:a", "colour": "bgr"})
            'colour'
        """
        mine, origin = self.origin, {**origin, "weights": known(origin.get("weights"))}
        for key in ("weights" if mine["weights"] and origin["weights"] else "extractor", "colour"):
            if None not in (mine[key], origin.get(key)) and mine[key] != origin[key]:
                return key
        return None
