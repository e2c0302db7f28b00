"""A plan as text: a row for each setting, what to use, the settings to paste, and the basis of the answer."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import indent

from ..results.plan import Plan, SettingFigures
from ..results.plan_models import CostliestModels, ModelCosts
from .format import bare_milliseconds, decimals, number, percent
from .prose.plan import answer, confirmed_in_words, grounds, of_models
from .prose.settings import settings_to_paste
from .table import aligned


def plan_text(plan: Plan, style: str) -> str:
    """`style` is tabulate's, `pipe` for Markdown."""
    markdown = style == "pipe"
    parts = [f"# {plan.plan}"] if markdown else []
    parts.append(_table(plan, style))
    if plan.confirmed is not None:
        parts.append(_listed("As measured", confirmed_in_words(plan.confirmed), markdown=markdown))
    parts.append(_listed("What to use", answer(plan), markdown=markdown))
    if plan.yaml and plan.recommended:
        [route] = [setting.route for setting in plan.settings if setting.label == plan.recommended]
        text = settings_to_paste(plan.recommended, route, plan.yaml, "local" if plan.nodes else None)
        parts.append(f"```yaml\n{text}```" if markdown else indent(text.rstrip(), "  "))
    if plan.over_models:
        parts.append(_listed("Models", of_models(plan), markdown=markdown))
        parts += [_costs(each, style) for each in plan.over_models if isinstance(each, CostliestModels)]
    parts.append(_listed("Basis of this answer", grounds(plan), markdown=markdown))
    return "\n\n".join(parts)


def _listed(title: str, sentences: list[str], *, markdown: bool) -> str:
    listed = "\n".join(f"- {sentence}" if markdown else sentence for sentence in sentences)
    return f"{'## ' if markdown else ''}{title}\n\n{listed}"


def _table(plan: Plan, style: str) -> str:
    columns = COLUMNS | (OF_NODES if plan.nodes else {})
    cells = [[column(row) for column in columns.values()] for row in plan.settings]
    return aligned(list(columns), cells, style)


def _costs(found: CostliestModels, style: str) -> str:
    """The models that cost the most, a row each."""
    cells = [[column(row) for column in COSTS.values()] for row in found.named]
    return aligned(list(COSTS), cells, style)


COLUMNS: dict[str, Callable[[SettingFigures], str]] = {  # | is a line break where there is room
    "setting": lambda setting: setting.label,
    "cold": lambda setting: percent(setting.cold_share, 1),
    "loads": lambda setting: str(setting.loads),
    "mean|(ms)": lambda setting: bare_milliseconds(setting.mean_ms),
    "p50|(ms)": lambda setting: bare_milliseconds(setting.p50_ms),
    "p99|(ms)": lambda setting: bare_milliseconds(setting.p99_ms),
    "mean|(MiB)": lambda setting: decimals(setting.mean_mib, 0),
    "peak|(MiB)": lambda setting: decimals(setting.peak_mib, 0),
    "per hour": lambda setting: number(setting.cost_per_hour, 4),
    "per million": lambda setting: number(setting.cost_per_million, 4),
    "× clairvoyant|minimum": lambda setting: decimals(setting.regret, 2),
    "capacity": lambda setting: "exceeded" if setting.capacity_exceeded else f"{percent(setting.busy)} used",
}
OF_NODES: dict[str, Callable[[SettingFigures], str]] = {
    "busiest node|/ mean": lambda setting: decimals(setting.nodes.busiest if setting.nodes else None, 1),
    "most bytes|/ budget": lambda setting: decimals(setting.nodes.room if setting.nodes else None, 2),
    "models in|memory": lambda setting: str(setting.nodes.distinct) if setting.nodes else "",
}
COSTS: dict[str, Callable[[ModelCosts], str]] = {
    "model": lambda costs: costs.model,
    "requests": lambda costs: str(costs.requests),
    "loads": lambda costs: str(costs.loads),
    "holding|a month": lambda costs: number(costs.holding),
    "cold starts|a month": lambda costs: number(costs.cold_starts),
    "share": lambda costs: percent(costs.share, 1),
}
