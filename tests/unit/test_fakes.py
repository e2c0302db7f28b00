"""What fails a test if a model is not used as its contract says."""

from __future__ import annotations

from pathlib import Path

from strategies.on_demand import OnDemand
from tests.helpers.fakes import FakeLoader, FakeModel
from tests.helpers.support import keeper_of


class ClosingLoader(FakeLoader):
    """Closes each model, which is for others to do."""

    def load(self, checkpoint: Path) -> FakeModel:
        model = super().load(checkpoint)
        model.close()
        return model


def test_a_model_that_is_closed_twice_is_noticed(checkpoints: list[Path], misuses: list[str]) -> None:
    """Although its keeper takes what `close` raises."""
    keeper = keeper_of(OnDemand(), ClosingLoader(), *checkpoints)
    with keeper.lease("a"):
        assert misuses == []
    assert misuses == ["a was closed twice"]
    misuses.clear()
    keeper.close()
