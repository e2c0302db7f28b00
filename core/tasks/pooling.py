"""How the vectors of a text's tokens become the vector of the text, as the files of sentence-transformers say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelReferenceError, NoFiniteScore
from .embed import MODULES
from .functions import Floats
from .json_file import read_json, read_object

Mask = NDArray[np.float32]  # of (texts, tokens): 1 for a token that counts, or that is no padding
TINY = np.float32(1e-9)  # a divisor instead of 0
TINY_NORM = np.float32(1e-12)
# The file beside config.json that has `max_seq_length`, and the one that has `default_prompt_name`.
ENCODER, PROMPTS = "sentence_bert_config.json", "config_sentence_transformers.json"
# The keys of the older form of a pooling's config, in the order in which the vectors are put together.
OLDER = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Pooling:
    """How the vectors of tokens become the vector of a text, and what is done to the text before.

    Without files that say it, a text has the mean of its tokens, not normalized, as sentence-transformers has it.
    """

    modes: tuple[str, ...] = ("mean",)
    """Each gives a vector; they are put one after the other."""
    normalizes: bool = False
    """Whether vectors have the length 1."""
    limit: int | None = None
    """Tokens of a text; None if the files give no limit."""
    lowers: bool = False
    """Whether texts are turned into lower case."""
    prompt: str = ""
    """The text before each text."""
    skips_prompt: bool = False
    """Whether the tokens of the prompt do not count."""

    def text(self, text: str) -> str:
        """The text that is tokenized."""
        text = self.prompt + text
        return text.lower() if self.lowers else text

    def vectors(self, hidden: Floats, mask: NDArray[np.int64] | None, skipped: int = 0) -> Floats:
        """The vector of each text. `hidden` has the vectors of (texts, tokens).

        `mask` is 0 for padding; None if there is none. The first `skipped` tokens of a text do not count. Raises
        NoFiniteScore for a number that is infinite or not a number.
        """
        real = np.ones(hidden.shape[:2], np.float32) if mask is None else mask.astype(np.float32)
        counts = real * (np.cumsum(real, axis=1) > skipped) if skipped else real
        parts = [MODES[mode](hidden, counts, real) for mode in self.modes]
        vectors = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if self.normalizes:
            vectors /= np.maximum(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)), TINY_NORM)[:, None]
        if not np.isfinite(vectors).all():
            raise NoFiniteScore("The model's vector for a text has a number that is not finite.")
        return vectors


def _first(hidden: Floats, counts: Mask, real: Mask) -> Floats:
    return np.asarray(hidden[np.arange(len(hidden)), counts.argmax(axis=1)])


def _last(hidden: Floats, counts: Mask, real: Mask) -> Floats:
    last = counts.shape[1] - 1 - counts[:, ::-1].argmax(axis=1)
    return np.asarray(hidden[np.arange(len(hidden)), last] * counts.any(axis=1, keepdims=True))


def _max(hidden: Floats, counts: Mask, real: Mask) -> Floats:
    return np.asarray(np.where(counts[:, :, None] > 0, hidden, -np.inf).max(axis=1), np.float32)


def _sum(hidden: Floats, weights: Mask) -> Floats:
    return np.asarray(np.einsum("nt,ntd->nd", weights, hidden))  # in this thread, where matmul would start others


def _mean(hidden: Floats, counts: Mask, real: Mask) -> Floats:
    return np.asarray(_sum(hidden, counts) / np.maximum(counts.sum(axis=1, keepdims=True), TINY))


def _by_root(hidden: Floats, counts: Mask, real: Mask) -> Floats:
    return np.asarray(_sum(hidden, counts) / np.sqrt(np.maximum(counts.sum(axis=1, keepdims=True), TINY)))


def _weighted(hidden: Floats, counts: Mask, real: Mask) -> Floats:
    return _mean(hidden, counts * np.cumsum(real, axis=1), real)


MODES: dict[str, Callable[[Floats, Mask, Mask], Floats]] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _by_root,
    "weightedmean": _weighted,
    "lasttoken": _last,
}


def read_pooling(directory: Path) -> Pooling:
    """The pooling that the checkpoint's files say. Raises ModelReferenceError for what is not computed here."""
    if not (directory / MODULES).is_file():
        return Pooling()
    kinds = [(_kind(module), _path(module, directory)) for module in _modules(directory)]
    wrong = next((kind for kind, _ in kinds[1:] if kind not in ("Pooling", "Normalize")), None)
    if not kinds or kinds[0] != ("Transformer", ""):
        wrong = kinds[0][0] if kinds else "nothing"
    if wrong is not None or [kind for kind, _ in kinds[1:2]] == ["Normalize"]:
        raise ModelReferenceError(
            f"{directory / MODULES} names {wrong or 'no Pooling'}; what is computed is a Transformer in the folder"
            " itself, then a Pooling, then perhaps a Normalize."
        )
    config = read_object(directory / kinds[1][1] / "config.json") if len(kinds) > 1 else {}
    path = directory / (kinds[1][1] if len(kinds) > 1 else "") / "config.json"
    encoder, prompts = _optional(directory / ENCODER), _optional(directory / PROMPTS)
    limit = encoder.get("max_seq_length")
    return Pooling(
        modes=_modes(config, path),
        normalizes=any(kind == "Normalize" for kind, _ in kinds),
        limit=limit if isinstance(limit, int) and not isinstance(limit, bool) else None,
        lowers=bool(encoder.get("do_lower_case", False)),
        prompt=_default_prompt(prompts, directory / PROMPTS),
        skips_prompt=config.get("include_prompt", True) is False,
    )


def module_configs(directory: Path) -> list[str]:
    """The configs of the modules in folders of the checkpoint's directory, whether they exist or not.

    There are none if no file names modules.
    """
    try:
        paths = [_path(module, directory) for module in _modules(directory)]
    except ModelReferenceError:  # reading the pooling tells it
        return []
    return [f"{path}/config.json" for path in dict.fromkeys(paths) if path]


def _modules(directory: Path) -> list[Mapping[str, Any]]:
    if not (file := directory / MODULES).is_file():
        return []
    modules = read_json(file)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelReferenceError(f"{file} must contain a list of JSON objects.")
    return modules


def _kind(module: Mapping[str, Any]) -> str:
    """The name of the module's class, without its package, which depends on the version that wrote it."""
    return str(module.get("type")).rpartition(".")[2]


def _path(module: Mapping[str, Any], directory: Path) -> str:
    path = module.get("path", "")
    if not isinstance(path, str) or path in (".", "..") or "/" in path or "\\" in path:
        raise ModelReferenceError(f"{directory / MODULES} has the path {path!r}; it must name a folder beside it.")
    return path


def _modes(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The modes of a pooling, in the newer form or in the older one."""
    named = config.get("pooling_mode", tuple(mode for key, mode in OLDER.items() if config.get(key)) or "mean")
    modes = (named,) if isinstance(named, str) else tuple(named) if isinstance(named, list | tuple) else (named,)
    for mode in modes:
        if mode not in MODES:
            raise ModelReferenceError(f"{path} has the pooling_mode {mode!r}; known are {', '.join(MODES)}.")
    return modes or ("mean",)


def _default_prompt(prompts: Mapping[str, Any], path: Path) -> str:
    """The text that sentence-transformers puts before each text unless it is told otherwise; mostly none."""
    if (name := prompts.get("default_prompt_name")) is None:
        return ""
    known = prompts.get("prompts")
    prompt = known.get(name) if isinstance(known, dict) else None
    if not isinstance(prompt, str):
        raise ModelReferenceError(f"{path} has the default_prompt_name {name!r}, but no such prompt.")
    return prompt


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}
