"""The docstrings of tiir as griffe wants them.

"Example:" is "Examples:", "a, b: both do this" an entry for each, a colon in what is returned does not end its type, and
the Args of a class that has no `__init__` of its own (pydantic's models, protocols) are its attributes.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SHARED = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +\S.*)*)", re.MULTILINE)
RETURNS = re.compile(r"^(Returns|Yields):\n( +)", re.MULTILINE)
SECTION = re.compile(r"^Args:\n(?: +.*\n|\n)+", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value + "\n", flags=re.MULTILINE)
            text = SECTION.sub(lambda args: SHARED.sub(_each, args[0]), text)
            text = RETURNS.sub(r"\1:\n\2: ", text)
            if obj.is_class and "__init__" not in obj.members and "dataclass" not in str(obj.labels):
                text = text.replace("\nArgs:\n", "\nAttributes:\n")
            obj.docstring.value = text.rstrip("\n")


def _each(shared: re.Match[str]) -> str:
    indent, names, text = shared.groups()
    return "\n".join(f"{indent}{name}: {text}" for name in names.split(", "))
