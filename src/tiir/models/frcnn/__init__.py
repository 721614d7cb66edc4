"""The bottom-up-attention Faster R-CNN behind LXMERT's region features, as the hub model `unc-nlp/frcnn-vg-finetuned` has it."""

from tiir.models.frcnn.config import FrcnnConfig
from tiir.models.frcnn.detector import Frcnn
from tiir.models.frcnn.network import FrcnnNetwork

__all__ = ["Frcnn", "FrcnnConfig", "FrcnnNetwork"]
