"""What is said of findings: one file for each subject. `say` knows the findings of all of them."""

from __future__ import annotations

from . import (
    answers,
    changes,
    economics,
    flips,
    notes,
    plan,
    plan_models,
    plan_notes,
    plan_reference,
    run,
    targets,
    verdicts,
    warnings,
)

__all__ = [
    "answers",
    "changes",
    "economics",
    "flips",
    "notes",
    "plan",
    "plan_models",
    "plan_notes",
    "plan_reference",
    "run",
    "targets",
    "verdicts",
    "warnings",
]
