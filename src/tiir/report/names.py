"""Names of models to show: a page may be put where everyone reads it, so no folders of this machine are in them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["short_name"]

CASCADE = " > "  # between the two models of one


def short_name(model: str) -> str:
    """A model's name to show: a hub id as it is, of a directory its own name only.

    Example:
        >>> short_name("lxmert:unc-nlp/lxmert-base-uncased"), short_name("lxmert:/data/models/mine")
        ('lxmert:unc-nlp/lxmert-base-uncased', 'lxmert:mine')
        >>> short_name("/data/models/clip > lxmert:/data/models/mine")
        'clip > lxmert:mine'
    """
    return CASCADE.join(_short(name) for name in model.split(CASCADE))


def _short(model: str) -> str:
    kind, colon, name = model.rpartition(":") if model.startswith("lxmert:") else ("", "", model)
    path = Path(name)
    # A hub id has one slash at most.
    if path.is_absolute() or path.is_dir() or name.startswith((".", "~")) or name.count("/") > 1:
        name = path.expanduser().resolve().name
    return kind + colon + name
