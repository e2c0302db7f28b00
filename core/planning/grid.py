"""The settings that a plan compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from pydantic import JsonValue

from ..config.strict_yaml import Document
from ..costs.prices import Prices
from ..errors import OptionError, ResidencyError
from ..plugins import Plugins, Registered
from ..residency.limits import start_strategy
from ..results.plan_findings import SettingLeftOut
from .profile import Profile
from .setting import Setting

Values = Mapping[str, Sequence[JsonValue]]
"""By the name of an option."""
Grid = Mapping[str, Values | Sequence[Values] | None]
"""By the name of a strategy."""


def grid_of(document: Document, grid: Grid, plugins: Plugins) -> list[Setting]:
    """Every setting of a plan's grid, in the order of the table: each strategy with all combinations of the values of
    its options. A strategy that the grid does not name has its own values (`grid`); one that is null is left out.

    Raises ResidencyError, whose sentence names the place.
    """
    found: list[Setting] = []
    for name in grid:
        try:
            plugins.strategy(name)
        except ResidencyError as error:
            raise document.error(("grid", name), str(error)) from error
    for name, registered in plugins.strategies.items():
        if name not in grid:
            found += _combined(registered, getattr(registered.cls, "grid", {}), is_default=True)
        elif (chosen := grid[name]) is not None:
            for number, values in enumerate([chosen] if isinstance(chosen, Mapping) else chosen):
                _check(document, registered, values, () if isinstance(chosen, Mapping) else (number,))
                found += _combined(registered, values, is_default=False)
    return found


def _combined(registered: Registered, values: Values, *, is_default: bool) -> Iterator[Setting]:
    """The settings of these values; an option that is off, and is off by default, is not shown."""
    fields = registered.options.model_fields
    for each in product(*values.values()):
        chosen = dict(zip(values, each, strict=True))
        shown = {k: v for k, v in chosen.items() if v or k not in fields or fields[k].default != v}
        yield Setting(registered, shown, is_default)


def _check(document: Document, registered: Registered, values: Values, place: tuple[int, ...]) -> None:
    where: tuple[str | int, ...] = ("grid", registered.name, *place)
    for option, listed in values.items():
        for number, value in enumerate(listed):
            try:
                registered.validate({option: value})
            except OptionError as error:
                if error.option == option:
                    raise document.error((*where, option, number), str(error)) from error
    for setting in _combined(registered, values, is_default=False):
        try:
            registered.validate(dict(setting.options))
        except OptionError as error:
            raise document.error((*where, error.option), str(error)) from error


def settings(all_of_them: Iterable[Setting], profile: Profile, prices: Prices) -> list[Setting]:
    """The settings under which every model fits."""
    return [each for each in all_of_them if not _is_idle(each, profile) and not _why_not(each, profile, prices)]


def left_out(all_of_them: Iterable[Setting], profile: Profile, prices: Prices) -> list[SettingLeftOut]:
    """The settings that are left out, with the reasons."""
    wanted = [each for each in all_of_them if not _is_idle(each, profile)]
    reasons = [(each.label, _why_not(each, profile, prices)) for each in wanted]
    return [SettingLeftOut(label=label, reason=why) for label, why in reasons if why]


def _is_idle(setting: Setting, profile: Profile) -> bool:
    """Whether it comes from the strategy's own grid, with a capacity that changes nothing, because all models fit."""
    capacity = setting.decisions().capacity if setting.is_default else None
    return capacity is not None and capacity >= len(profile.models)


def _why_not(setting: Setting, profile: Profile, prices: Prices) -> str:
    """Why the strategy would not start; empty if it would."""
    sizes = {name: model.nbytes for name, model in profile.models.items()}
    try:
        decisions = setting.decisions(prices)
        start_strategy(decisions, sizes, sizes)
    except Exception as error:  # a third party's constructor can fail in any way
        return str(error)
    return ""
