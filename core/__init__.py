"""Residency: how long should a model stay in memory?"""

from __future__ import annotations

from .contracts import Loader, LoadingStrategy, Model, Prediction, Resident
from .errors import ResidencyError

__all__ = ["Loader", "LoadingStrategy", "Model", "Prediction", "ResidencyError", "Resident"]
