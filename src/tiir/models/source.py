"""Where a model is loaded from: a directory, or a commit of the hub, which is asked once; and what went wrong there."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from logging import getLogger
from pathlib import Path
from typing import Any, cast

from huggingface_hub import HfApi, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE, HF_HUB_ETAG_TIMEOUT, HF_HUB_OFFLINE
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tiir.errors import ModelError, similar
from tiir.io import sha256_file

__all__ = ["Source", "model_file", "unloadable"]


@dataclass(frozen=True)
class Source:
    """Where a model is loaded from: a directory, or a commit of a hub model.

    Args:
        name: hub id or directory.
        commit: of a hub model.
        why: only the hub's cache is read; None where the hub answered.

    Example:
        >>> Source("some/clip", commit="76de1b3").arguments["revision"]
        '76de1b3'
    """

    name: str
    commit: str | None = None
    why: str | None = None

    @classmethod
    def of(cls, model: str | Source, revision: str | None = None) -> Source:
        """Find a model, by asking the hub once.

        A hub model is loaded by the commit that its revision is now, so that all its files are of one. Where the hub
        does not answer, the cache says which commit that was, and has the files; a note on stderr says so.

        Args:
            model: hub id or directory; a Source is given back.
            revision: commit, tag or branch of a hub model; of a directory the content hash that it must have.

        Raises:
            ModelError: no such directory or hub model, a directory with another content or asked for a commit, or the
                hub does not answer and the cache does not hold the model.
        """
        if isinstance(model, Source):
            return model
        hashed = revision is not None and revision.startswith("sha256:")
        if Path(model).is_dir():
            source = cls(model)
            if revision is not None and not hashed:
                raise ModelError(
                    f"{model} is a directory, it has no revision {revision!r}", hint="leave --revision out"
                )
            if revision not in (None, source.revision):
                raise ModelError(
                    f"{model} is another model than before: its files are {source.revision}, they were {revision}",
                    hint="give the directory of that model",
                )
            return source
        if hashed or Path(model).exists() or model.startswith((".", "/", "~")) or model.count("/") > 1:
            raise ModelError(
                f"no such model directory: {model}", hint=f"give a directory, or a hub id{similar(model)}"
            )
        return _found(model, revision or "main")

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of transformers' `from_pretrained`, besides the name."""
        of_hub = {"revision": self.commit, "local_files_only": self.why is not None}
        return {"trust_remote_code": False} | ({} if self.commit is None else of_hub)

    @cached_property
    def revision(self) -> str:
        """The commit of a hub model; the content hash of a directory."""
        if self.commit is not None:
            return self.commit
        digest = hashlib.sha256()
        for path in sorted(Path(self.name).iterdir()):
            if path.is_file() and not path.name.startswith("."):
                digest.update(f"{path.name} {sha256_file(path)}\n".encode())
        return f"sha256:{digest.hexdigest()[:32]}"


def _found(name: str, revision: str) -> Source:
    try:
        commit = HfApi().model_info(name, revision=revision, timeout=HF_HUB_ETAG_TIMEOUT).sha
    except Exception as problem:  # whatever the HTTP library of the hub's client raises
        why = _why(problem)
        try:
            folder = snapshot_download(
                name, revision=revision, allow_patterns="config.json", local_files_only=True
            )
        except (LocalEntryNotFoundError, HFValidationError) as absent:
            cause = problem if isinstance(problem, HfHubHTTPError) else absent
            raise unloadable(Source(name, why=why), cause) from problem
        source = Source(name, Path(folder).name, why)
        if not HF_HUB_OFFLINE:
            getLogger("tiir").warning(
                "note: %s: commit %s of %s is read from the cache", why, source.commit, name
            )
        return source
    with suppress(
        Exception
    ):  # so that the cache can say it, too; what is wrong shows when the model is loaded
        hf_hub_download(name, "config.json", revision=revision)
    return Source(name, str(commit))


def model_file(source: Source, file: str) -> Path | None:
    """A file of a model; None where it has no such file.

    Args:
        source: of the model.
        file: its path in there.

    Raises:
        ModelError: it cannot be fetched, and the cache does not know whether there is one.
    """
    if source.commit is None:
        path = Path(source.name) / file
        return path if path.is_file() else None
    try:
        known = try_to_load_from_cache(source.name, file, revision=source.commit)
        if known is None:
            known = hf_hub_download(
                source.name, file, revision=source.commit, local_files_only=source.why is not None
            )
    except Exception as problem:  # see `_found`
        if isinstance(problem, EntryNotFoundError) and not isinstance(problem, LocalEntryNotFoundError):
            return None
        raise unloadable(source, problem) from problem
    return Path(known) if isinstance(known, str) else None  # the cache knows, too, that a file is not there


def unloadable(source: Source, problem: Exception) -> ModelError:
    """What to raise where transformers could not load a model: the cause in one line, and what to do about it.

    Args:
        source: of the model.
        problem: what transformers raised.

    Example:
        >>> print(unloadable(Source("clip-b32"), ValueError("Unrecognized model")))
        cannot load clip-b32: Unrecognized model
          -> check the id
    """
    name, causes = source.name, [cast(BaseException, problem)]
    while cause := causes[-1].__cause__:
        causes.append(cause)
    lost = any(isinstance(cause, LocalEntryNotFoundError) for cause in causes)  # on its way from the hub
    if any(isinstance(cause, ImportError) for cause in causes):
        problem_line, hint = _first_line(causes[-1]), "`tiir doctor` says what is broken, and what to do"
        if isinstance(causes[-1], ImportError):
            hint = f"install what it asks for; {hint}"
    elif Path(name).is_dir():
        problem_line, hint = _first_line(problem), "the directory may be incomplete or damaged"
    elif source.commit and source.why:
        problem_line = _first_line(problem)
        hint = (
            f"only the cache {HF_HUB_CACHE} was read, because {source.why}; it may not hold all of the model"
        )
    elif any(isinstance(cause, GatedRepoError) for cause in causes):
        problem_line = "access to it is restricted"
        hint = f"request it at {ENDPOINT}/{name}, then run `hf auth login`"
    elif any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        problem_line = f"there is no such directory, and {ENDPOINT} has no such model, or a private one"
        hint = f"check the name{similar(name)}; for a private one run `hf auth login`"
    elif any(isinstance(cause, RevisionNotFoundError) for cause in causes):
        problem_line = "the hub has no such revision of it"
        hint = f"give a commit, tag or branch of {ENDPOINT}/{name}, or none"
    elif lost and source.commit is None:
        why = source.why or _why(causes[-1])
        problem_line = f"there is no such directory, the cache {HF_HUB_CACHE} does not hold it, and {why}"
        hint = (
            f"check the name{similar(name)}{'' if HF_HUB_OFFLINE else ' and the network'}; on a machine with a network "
            f"run `hf download {name} --local-dir FOLDER`, copy FOLDER here, and give FOLDER as the model"
        )
    else:
        problem_line, hint = _first_line(problem), f"check the id{similar(name)}"
        if lost or isinstance(problem, HfHubHTTPError):
            problem_line = _first_line(causes[-1])
            hint = "check the network and HF_ENDPOINT, or try it again later"
    return ModelError(f"cannot load {name}: {problem_line}", hint=hint)


def _why(problem: BaseException) -> str:
    # Why nothing is to be had from the hub.
    if HF_HUB_OFFLINE:
        return "this process is offline (HF_HUB_OFFLINE)"
    if isinstance(problem, HfHubHTTPError):
        return f"the hub answered {problem.response.status_code}"
    said = "" if isinstance(problem, LocalEntryNotFoundError) else f" ({_first_line(problem)})"
    return f"{ENDPOINT} cannot be reached{said}"


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]
