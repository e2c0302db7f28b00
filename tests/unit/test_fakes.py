"""What fails a test if a model is not used as its contract says."""

from __future__ import annotations

from pathlib import Path

from strategies.on_demand import OnDemand
from tests.helpers.fakes import FakeLoader, FakeModel
from tests.helpers.support import keeper_of


class RememberingLoader(FakeLoader):
    """Remembers the models that it has made."""

    def __init__(self) -> None:
        super().__init__()
        self.models: list[FakeModel] = []

    def load(self, checkpoint: Path) -> FakeModel:
        self.models.append(super().load(checkpoint))
        return self.models[-1]


def test_a_model_that_is_closed_twice_is_noticed(checkpoints: list[Path], misuses: list[str]) -> None:
    """Although a second `close` does nothing."""
    loader = RememberingLoader()
    keeper = keeper_of(OnDemand(), loader, *checkpoints)
    with keeper.lease("a"):
        loader.models[-1].close()
        assert misuses == []
    assert misuses == ["a was closed twice"]
    misuses.clear()
    keeper.close()
