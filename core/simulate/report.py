"""The folder of a plan: plan.json, and plan.md with what the terminal shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .confirm import sentences as confirmed_in_words
from .words import sentences, table


def write_plan(folder: Path, plan: Mapping[str, Any], confirmed: Mapping[str, Any] | None = None) -> str:
    """Write both, with what `--confirm` found where there is something; the text for the terminal."""
    words = sentences(plan)
    found = confirmed_in_words(confirmed) if confirmed else []
    whole = {**plan, "sentences": words, "confirmed": confirmed and {**confirmed, "sentences": found}}
    (folder / "plan.json").write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    listed = "\n".join(f"- {sentence}" for sentence in (*found, *words))
    text = f"# {plan['plan']}\n\n{table(plan, 'pipe')}\n\n{listed}\n"
    (folder / "plan.md").write_text(text, encoding="utf-8")
    if found:
        return "\n".join(found)
    return "\n".join([table(plan, "simple"), "", *words])
