"""What users may rely on: names, signatures, types and docstrings; the names stand in api.txt."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from html.parser import HTMLParser
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import pytest
from pydantic import BaseModel

import tiir
from tiir.analysis import compare, diagnose
from tiir.data import Dataset, Judgements, resolve
from tiir.features import FeatureInfo, FeatureStore
from tiir.metrics import evaluate, metrics_of, rank_run
from tiir.scoring import Run, RunInfo

PINNED = Path(__file__).with_name("api.txt")
INTERNAL = {"tiir.cli", "tiir.models.frcnn", "tiir.scoring.engines"}


def packages() -> list[str]:
    """All packages but the internal ones, and what is public of modules: the errors, and the sources of data sets."""
    found = [info.name for info in pkgutil.walk_packages(tiir.__path__, "tiir.") if info.ispkg]
    sources = [f"tiir.data.sources.{name}" for name in import_module("tiir.data.sources").__all__]
    public = ["tiir", "tiir.errors", *sources, *found]
    return sorted(name for name in public if name not in INTERNAL)


def exported(package: str) -> list[tuple[str, Any]]:
    module = import_module(package)
    return [(name, getattr(module, name)) for name in module.__all__]


def members(cls: type) -> Iterator[tuple[str, str, Any]]:
    """Kind, name and function of what a class offers of its own (and of the bases that are tiir's)."""
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    ours = [base for base in cls.__mro__ if base.__module__.startswith("tiir.")]
    merged = {name: value for base in reversed(ours) for name, value in vars(base).items()}
    for name, value in sorted(merged.items()):
        if name.startswith("_") or name in fields or name == "model_config":
            continue
        if isinstance(value, property):
            yield "property", name, value.fget
        elif isinstance(value, cached_property):
            yield "property", name, value.func
        elif isinstance(value, classmethod | staticmethod):
            yield "classmethod", name, value.__func__
        elif inspect.isfunction(value):
            yield "method", name, value


def annotation(value: Any) -> str:
    text = value if isinstance(value, str) else getattr(value, "__forward_arg__", None)
    return text or inspect.formatannotation(value)


def shown(default: Any) -> str:
    text = repr(default)
    return "..." if default is ... or text.startswith("<") or len(text) > 60 else text


def signature(function: Callable[..., Any], *, bound: bool = False) -> str:
    parts, star = [], False
    parameters = list(inspect.signature(function).parameters.values())[bound:]
    for p in parameters:
        if p.name.startswith("_"):
            continue
        name = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "") + p.name
        if p.kind is p.KEYWORD_ONLY and not star:
            parts.append("*")
        star = star or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        typed = name if p.annotation is p.empty else f"{name}: {annotation(p.annotation)}"
        parts.append(typed if p.default is p.empty else f"{typed} = {shown(p.default)}")
    result = (
        ""
        if inspect.isclass(function)
        else f" -> {annotation(inspect.signature(function).return_annotation)}"
    )
    return f"({', '.join(parts)}){result}"


def described(name: str, value: Any) -> Iterator[str]:
    if not inspect.isclass(value):
        constant = list(value) if isinstance(value, dict) else value
        yield f"{name}{signature(value)}" if inspect.isfunction(value) else f"{name} = {constant}"
        return
    bases = [base.__name__ for base in value.__bases__ if base.__module__.startswith("tiir.")]
    head, base = f"class {name}", "".join(f", a {base}" for base in bases)
    if issubclass(value, BaseModel):
        yield head
        kinds = {
            name: kind
            for base in reversed(value.__mro__)
            for name, kind in inspect.get_annotations(base).items()
        }
        for field, info in value.model_fields.items():
            default = (
                ""
                if info.is_required()
                else " = ..."
                if info.default_factory
                else f" = {shown(info.default)}"
            )
            yield f"    {field}: {annotation(kinds[field])}{default}"
    elif getattr(value, "_is_protocol", False):
        yield f"{head}, a protocol"
        yield from (
            f"    {field}: {annotation(kind)}" for field, kind in inspect.get_annotations(value).items()
        )
    else:
        yield f"{head}{signature(value)}{base}"
    for kind, member, function in members(value):
        if kind == "property":
            yield f"    {member}: {annotation(inspect.signature(function).return_annotation)}"
        else:
            yield f"    {'classmethod ' * (kind == 'classmethod')}{member}{signature(function, bound=True)}"


def api() -> str:
    """All of the public API as text: a line a name, and what a class offers below it."""
    home = {
        id(value): package for package in packages() if package != "tiir" for _, value in exported(package)
    }
    lines = []
    for package in packages():
        lines += [package, "=" * len(package)]
        for name, value in exported(package):
            if name == "__version__":
                lines.append("__version__")
            elif isinstance(value, ModuleType):
                lines.append(f"{name}: {value.__name__}")
            elif package == "tiir":
                lines.append(f"{name}: that of {home[id(value)]}")
            else:
                lines += described(name, value)
        lines.append("")
    return "\n".join(lines)


def test_the_api_is_what_is_pinned() -> None:
    pinned = PINNED.read_text(encoding="utf-8").splitlines()
    now = api().splitlines()
    gone = [line for line in pinned if line not in now]
    new = [line for line in now if line not in pinned]
    assert now == pinned, (
        "the public API changed:\n" + "\n".join([*(f"- {line}" for line in gone), *(f"+ {line}" for line in new)])
        + f"\nIf users can live with that: python tests/test_api.py > tests/{PINNED.name}, and a line in CHANGELOG.md"
    )  # fmt: skip


def documented() -> Iterator[tuple[str, Callable[..., Any] | None, str]]:
    """Name, function (None of a class) and docstring of all that is public."""
    for package in packages():
        for name, value in exported(package):
            if inspect.isclass(value):
                yield f"{package}.{name}", None, value.__doc__ or ""
                for _, member, function in members(value):
                    yield f"{package}.{name}.{member}", function, inspect.getdoc(function) or ""
            elif inspect.isfunction(value):
                yield f"{package}.{name}", value, value.__doc__ or ""


def test_everything_has_types_and_a_docstring_that_names_every_argument() -> None:
    missing = set()
    for name, function, text in documented():
        if not text:
            missing.add(f"{name}: docstring")
        if function is None:
            continue
        found = inspect.signature(function)
        if found.return_annotation is found.empty:
            missing.add(f"{name}: type of what it returns")
        arguments = [p for p in found.parameters.values() if p.name not in ("self", "cls")]
        missing |= {f"{name}: type of {p.name}" for p in arguments if p.annotation is p.empty}
        if len(arguments) > 2:  # of fewer, the signature and the first line can say it all
            missing |= {
                f"{name}: what {p.name} is" for p in arguments if not re.search(rf"\b{p.name}\b", text)
            }
    assert not missing


def test_every_path_may_be_text() -> None:
    """As a notebook gives it; mypy sees that the function takes it."""
    paths = {
        f"{name}: {p.name}": set(re.findall(r"\w+", annotation(p.annotation)))
        for name, function, _ in documented()
        if function is not None
        for p in inspect.signature(function).parameters.values()
    }
    assert [where for where, words in paths.items() if "Path" in words and "str" not in words] == []


def test_every_protocol_that_users_may_meet_is_public() -> None:
    public = {name for package in packages() for name, _ in exported(package)}
    ours = {kind.__name__ for kind in Protocol.__subclasses__() if kind.__module__.startswith("tiir.")}
    taken = {
        word
        for _, function, _ in documented()
        if function is not None
        for p in inspect.signature(function).parameters.values()
        for word in re.findall(r"\w+", annotation(p.annotation))
    }
    assert ours & taken == {"Backbone", "Detector", "DualEncoder", "PairModel"}
    assert ours & taken < public


def test_every_package_is_found_from_tiir() -> None:
    found = {"tiir"} | {
        value.__name__ for name in packages() for _, value in exported(name) if isinstance(value, ModuleType)
    }
    assert found == set(packages())


def test_the_pages_import_what_is_pinned() -> None:
    root = PINNED.parent.parent
    text = "\n".join(page.read_text("utf-8") for page in (root / "README.md", *(root / "docs").glob("*.md")))
    found = re.findall(r"^(?: {4}|>>> )?from (tiir[\w.]*) import ([\w, ]+)$", text, re.MULTILINE)
    assert len(found) > 15
    assert [
        f"{package}.{name}"
        for package, names in found
        for name in names.split(", ")
        if package not in packages() or name not in import_module(package).__all__
    ] == []


def test_names_are_completed_without_loading_them() -> None:
    for package in ("tiir", "tiir.report", "tiir.train", "tiir.data.sources"):
        script = (
            f"import sys, {package} as p; print(*dir(p), *(name for name in sys.modules if '.' not in name))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        found, public = set(done.stdout.split()), set(import_module(package).__all__)
        assert public <= found
        assert not {"torch", "pandas", "matplotlib", "TYPE_CHECKING", "annotations"} & found


HOSTILE = "<script>alert('&')</script>"


class Page(HTMLParser):
    """The text of each tag, and that tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("b", "table", "tr", "th", "td", "p")
        self.open.append(tag)
        self.found.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.found[-1] = (self.found[-1][0], self.found[-1][1] + data)

    @property
    def facts(self) -> dict[str, str]:
        cells = self.found
        return {one: two for (tag, one), (kind, two) in pairwise(cells) if (tag, kind) == ("th", "td")}

    def cells(self) -> list[str]:
        return [text for tag, text in self.found if tag in ("th", "td")]


@pytest.fixture(scope="module")
def scored() -> tuple[Dataset, Run]:
    n = 30
    data = Dataset(
        "pets",
        "test",
        [f"image {HOSTILE} {i}" for i in range(n)],
        [f"c{i}" for i in range(2 * n)],
        [f"{HOSTILE} number {i}" for i in range(2 * n)],
        np.repeat(np.arange(n), 2),
        judgements=Judgements(np.array([0]), np.array([3]), np.ones(1, np.float32), ["expert"], [(4, 4, 4)]),
    )
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(n, 2 * n)).astype(np.float32)
    scores[np.repeat(np.arange(n), 2), np.arange(2 * n)] += 2
    return data, Run(RunInfo.about(data, "pets", HOSTILE, seconds=3.5), scores=scores)


def test_a_run_and_its_data_show_themselves(scored: tuple[Dataset, Run]) -> None:
    data, run = scored
    page = Page(data._repr_html_())
    assert page.found[0] == ("b", "pets/test")
    wanted = {"images": "30", "captions": "60", "captions an image": "2 to 2", "judgements": "1"}
    assert page.facts.items() >= wanted.items()
    assert page.cells()[-2:] == [data.image_ids[2], f"{data.captions[4]} / {data.captions[5]}"]
    assert len(repr(data)) < 120
    page = Page(run._repr_html_())
    assert page.found[0] == ("b", repr(run))
    assert page.facts.items() >= {"model": HOSTILE, "precision": "float32", "seconds": "3.50"}.items()
    assert repr(data.judgements) == "Judgements(1 pair by expert)"


def test_results_show_their_table(scored: tuple[Dataset, Run]) -> None:
    data, run = scored
    made = evaluate(run, data, resamples=50)
    page = Page(made._repr_html_())
    assert page.found[0] == ("b", made.title)
    assert "own" in made.title
    row = page.cells()[page.cells().index("i2t") :]
    low, high = made.intervals["i2t_R@1"]
    assert row[1] == f"{made.values['i2t_R@1']:.2f} [{low:.1f}, {high:.1f}]"
    assert page.facts["rsum"] == f"{made.values['rsum']:.2f}"
    assert repr(made) == (
        f"Evaluation({HOSTILE} on pets/test, own: i2t R@1 {made.values['i2t_R@1']:.2f}, "
        f"t2i R@1 {made.values['t2i_R@1']:.2f}, rsum {made.values['rsum']:.2f})"
    )
    ranks = Page(rank_run(run, data)._repr_html_())
    assert ranks.cells()[ranks.cells().index("t2i") + 1] == f"{made.values['t2i_R@1']:.2f}"


def test_analyses_show_themselves(scored: tuple[Dataset, Run]) -> None:
    data, run = scored
    found = diagnose(run, data, resamples=0)
    hard = (found.table["rank"] > 10).sum()
    assert repr(found).startswith(f"Diagnosis(90 queries, {hard} hard, ")
    page = Page(found._repr_html_())
    assert page.found[0] == ("b", repr(found))
    assert {text for tag, text in page.found if tag == "p"} == set(found.notes)
    assert set(found.tags["tag"]) <= set(page.cells())
    other = Run(RunInfo.about(data, "pets", "other"), scores=run.scores[::-1].copy())
    both = compare([run, other], data, resamples=100)
    assert repr(both) == f"Comparison({HOSTILE}, other: 90 queries)"
    page = Page(both._repr_html_())
    assert [text for tag, text in page.found if tag == "p"] == both.sentences()
    assert f"{both.combined['mix'][0]:.2f}" in page.cells()


def test_a_feature_store_shows_itself(tmp_path: Path) -> None:
    path = tmp_path / "<features>.h5"
    with FeatureStore.create(path, FeatureInfo(extractor=HOSTILE), ["a"], n_regions=1, width=3) as writer:
        writer.put([0], np.ones((1, 1, 3)), np.array([[[0, 0, 1, 1]]]))
    store = FeatureStore.open(path)
    page = Page(store._repr_html_())
    assert page.found[0] == ("b", repr(store))
    assert page.facts == {"regions an image": "1", "width": "3", "file": str(path)}


def test_every_public_object_of_data_has_a_short_repr(scored: tuple[Dataset, Run]) -> None:
    """Arrays and tables are counted, not printed."""
    data, run = scored
    made = evaluate(run, data, resamples=0)
    found = diagnose(run, data, resamples=0)
    metric = metrics_of(made.ranks)["i2t_R@1"]
    gallery = resolve("own", data)[0]
    for value in (data, run, made, made.ranks, made.ranks.i2t_counts, metric, gallery, gallery.i2t, found):
        assert "\n" not in repr(value)
        assert "array" not in repr(value)
        assert len(repr(value).replace(HOSTILE, "")) < 150


if __name__ == "__main__":
    print(api(), end="")
