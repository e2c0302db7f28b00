"""Residency: how long should a model stay in memory?"""

from __future__ import annotations

from .contracts import Load, Loader, LoadingStrategy, Model, Prediction, Reason
from .errors import ResidencyError

__all__ = ["Load", "Loader", "LoadingStrategy", "Model", "Prediction", "Reason", "ResidencyError"]
