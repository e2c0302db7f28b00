"""What is said of a card's answer, and of what would settle it."""

from __future__ import annotations

from ...costs.worth import MATTERS
from ...results.answers import (
    CheapestAtEveryRate,
    CheapestAtRate,
    CheapestNotSettled,
    FastestOfSame,
    FurtherRounds,
    MeasuredCheapest,
    MeasuredCosts,
    NoAlternative,
    NoneKnownCheaper,
    NothingEligible,
    NothingPriced,
    RateNotSettled,
    RoundsLacking,
    SavingsAtRate,
    SavingsByRate,
    TargetMet,
    TargetNotSettled,
    TrialLacking,
)
from ...results.figures import Interval
from ...stats.intervals import VERDICT_ROUNDS
from ..format import listed, milliseconds, missing, number, rate, target
from .rounds import say_all_processes_met, say_further_rounds
from .sentences import say


@say.register
def say_rounds_lacking(finding: RoundsLacking) -> str:
    return (
        f"A recommendation needs {VERDICT_ROUNDS} rounds finished by every trial; {missing(finding.lacking)}"
        f" (set repeats: {finding.repeats})."
    )


@say.register
def say_further(finding: FurtherRounds) -> str:
    return say_further_rounds(finding.rounds, finding.repeats)


@say.register
def say_trial_lacking(finding: TrialLacking) -> str:
    if finding.has_second:
        return "A recommendation needs a second strategy that can be priced."
    return "A recommendation needs a second strategy; name one under 'strategies'."


@say.register
def say_nothing_priced(finding: NothingPriced) -> str:
    reasons = sorted({say(reason) for reason in finding.reasons}) or ["this run states no prices"]
    return f"There is no recommendation, because nothing can be priced: {'; '.join(reasons)}."


@say.register
def say_nothing_eligible(finding: NothingEligible) -> str:
    return "There is nothing to recommend."


@say.register
def say_no_alternative(finding: NoAlternative) -> str:
    return f"There is no other eligible trial to compare {finding.label} with."


@say.register
def say_measured_costs(finding: MeasuredCosts) -> str:
    costs = " and ".join(f"{number(each.million)} under {each.label}" for each in (finding.first, finding.second))
    where = _capital(say(finding.rates))
    return f"{where}, a million requests cost {costs}, by these measurements; that is not a verdict."


@say.register
def say_cheapest_at_rate(finding: CheapestAtRate) -> str:
    first, second = finding.first, finding.second
    longer = f"; {say(finding.longer)}" if finding.longer else ""
    return (
        f"{_capital(say(finding.rates))}, {first.label} is the cheapest, ahead of {second.label}:"
        f" {number(first.million)} against {number(second.million)} for a million requests"
        f" {_of_difference(finding.ci95)}{longer}."
    )


@say.register
def say_cheapest_not_settled(finding: CheapestNotSettled) -> str:
    figures = [f"{number(each.million)} under {each.label} {_of_difference(each.ci95)}" for each in finding.others]
    return (
        f"{_capital(say(finding.rates))}, it is not settled whether {finding.first.label} costs less than"
        f" {listed([each.label for each in finding.others])}: {number(finding.first.million)} for a million requests"
        f" against {listed(figures)}."
    )


@say.register
def say_fastest_of_same(finding: FastestOfSame) -> str:
    margin = f"more than {MATTERS:.0%} of the cost"
    if finding.saves is not None and finding.saves > 0:
        threshold = f"the threshold, 'trifle', is {number(finding.trifle)}"
        margin = f"more than {number(finding.saves)} a month ({threshold})"
    elif finding.saves is not None:
        margin = "anything"
    slower = listed([f"{milliseconds(each.ms)} under {each.label}" for each in finding.slower])
    alike = listed([f"{each.label} ({milliseconds(each.ms)})" for each in finding.alike])
    fewer = "; it has fewer options" if finding.has_fewest_options else ""
    doubt = f" The rounds do not show it to be faster than {alike}{fewer}." if alike else ""
    where = f"{say(finding.rates)}, " if finding.rates else ""
    return _capital(
        f"{where}no alternative saves {margin}, so the fastest is recommended: {finding.label} takes"
        f" {milliseconds(finding.mean_ms)} on average{f', against {slower}' if slower else ''}.{doubt}"
    )


@say.register
def say_savings_at_rate(finding: SavingsAtRate) -> str:
    figures = [
        f"{number(each.saves)} a month compared with {each.against}"
        f"{', which keeps its models' if each.keeps_models else ''}"
        for each in finding.savings
    ]
    return f"{finding.label} saves {listed(figures)}."


@say.register
def say_savings_by_rate(finding: SavingsByRate) -> str:
    figures = [
        f"{number(each.saves)} a month {f'at {rate(each.per_hour)}' if each.per_hour else 'with no requests'}"
        for each in finding.savings
    ]
    aside = ", which keeps its models," if finding.keeps_models else ","
    return f"Compared with {finding.against}{aside} {finding.label} saves {listed(figures)}."


@say.register
def say_cheapest_at_every_rate(finding: CheapestAtEveryRate) -> str:
    return f"{finding.savings.label} is the cheapest at every rate. {say(finding.savings)}"


@say.register
def say_measured_cheapest(finding: MeasuredCheapest) -> str:
    return f"By these measurements {finding.label} costs the least at every rate; that is not a verdict."


@say.register
def say_none_known_cheaper(finding: NoneKnownCheaper) -> str:
    return f"No other is known to cost less than {finding.label} at any rate."


@say.register
def say_rate_not_settled(finding: RateNotSettled) -> str:
    where = f"{finding.side.capitalize()} {rate(finding.at)} it" if finding.side else "It"
    return f"{where} is not settled whether {finding.label} costs less than {finding.against}. {say(finding.settles)}"


@say.register
def say_target_met(finding: TargetMet) -> str:
    wanted = target(finding.percentile, finding.target_ms)
    return f"{say_all_processes_met(finding.rounds, finding.least, finding.label, wanted)}."


@say.register
def say_target_not_settled(finding: TargetNotSettled) -> str:
    return f"Whether {finding.label} meets {target(finding.percentile, finding.target_ms)} is not settled."


def _of_difference(interval: Interval) -> str:
    low, high = interval
    return f"(95 % interval of the difference {number(low)} to {number(high)})"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
