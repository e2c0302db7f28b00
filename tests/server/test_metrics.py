"""What `/metrics` tells of a thousand models, and how much it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.config.choices import LoaderChoice, StrategyChoice
from core.config.settings import Settings
from core.plugins import load_plugins
from core.serving.metrics import MIB
from core.serving.service import Service
from tests.helpers.support import FAKES, checkpoint_in

MODELS = 1000
REVISION = "0123456789abcdef0123456789abcdef01234567"


def series_by_model(text: str) -> dict[str, int]:
    """How many series there are of each metric that tells models apart, by its name."""
    counts = {
        family.name: sum("model" in sample.labels for sample in family.samples)
        for family in text_string_to_metric_families(text)
    }
    return {name: count for name, count in counts.items() if count}


@pytest.mark.slow
def test_a_thousand_models_take_less_than_a_mebibyte(tmp_path: Path) -> None:
    """With the longest ids that there are, and from the hub; each is loaded, answers, and is evicted by the next."""
    directory = checkpoint_in(tmp_path / "models--org--name" / "snapshots" / REVISION)
    settings = Settings(
        models={f"{'m' * 60}{i:04}": str(directory) for i in range(MODELS)},
        plugins=[FAKES],
        strategies=[StrategyChoice(strategy="lru-cached", loader=LoaderChoice(name="fake"), options={"capacity": 1})],
    )
    service = Service(settings, load_plugins(settings.plugins))
    [declared] = service.strategies

    async def ask_each() -> None:
        for model_id in service.engine.model_ids:
            await service.predict(declared.name, model_id, ["good"])

    service.engine.start()
    try:
        assert series_by_model(service.metrics.scrape().decode()) == {"residency_model_info": MODELS}
        asyncio.run(ask_each())
    finally:
        service.close()
    text = service.metrics.scrape().decode()
    assert len(text) < MIB
    assert series_by_model(text) == {
        "residency_model_info": MODELS,
        "residency_requests": MODELS,
        "residency_inference_seconds": MODELS,
        "residency_loads": MODELS,
        "residency_unloads": MODELS,
    }
    assert f'residency_queue_seconds_count{{strategy="lru-cached"}} {MODELS:.1f}\n' in text
