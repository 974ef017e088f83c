"""What a search varies, and which values trial i has: grid, random, or Optuna's proposal."""

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from ..core.errors import ConfigError, choose_from
from ..core.seeding import generator
from .config import parse_set

# What decides on the question that a score answers is the same for all trials.
_FIXED = ("dataset", "split", "evaluation", "adapter", "preset")


@frozen
class Choice:
    """Some values of an option, or names of components."""

    key: str
    values: tuple[Any, ...]


@frozen
class Range:
    """Numbers from `low` to `high`, both included; `log`: evenly spread in their logarithm."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool


Parameter = Choice | Range

# (number of the trial, records of trials that are done) -> values by key
Propose = Callable[[int, Sequence[Mapping[str, Any]]], dict[str, Any]]


def parameter(key: str, text: str) -> Parameter:
    """What to vary an option over, as `--over` has it.

    `0.5,1,1.5`: these values, in TOML's grammar or bare words. `0:0.5`, `log:0.0001:0.01`: any
    number between; whole numbers where both ends are. Raises ConfigError.
    """
    key, text = _free(key), text.strip()
    number = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
    found = re.fullmatch(f"(log:)?({number}):({number})", text, re.IGNORECASE)
    if found is None:
        return _choice(key, _values(key, text))
    log, low, high = found[1] is not None, float(found[2]), float(found[3])
    if not low < high or (log and low <= 0):
        raise ConfigError(f"{key}: '{text}' is no range{': log wants low > 0' if log else ''}")
    whole = all(re.fullmatch("[-+]?[0-9]+", found[i]) for i in (2, 3))
    return Range(key, low, high, log, whole)


def _free(key: str) -> str:
    if key.strip().partition(".")[0] in _FIXED:
        raise ConfigError(
            f"a search cannot vary '{key}': its trials are compared on the same data and question"
        )
    return key.strip()


def _values(key: str, text: str) -> Sequence[Any]:
    try:
        return parse_set(f"{key}=[{text}]")[1]
    except ConfigError:  # bare words among them
        return [parse_set(f"{key}={part}")[1] for part in text.split(",")]


def _choice(key: str, values: Sequence[Any]) -> Choice:
    if not values or "" in values:
        raise ConfigError(f"{key} has an empty value among {list(values)}")
    return Choice(key, tuple(values))


def parameters(over: Mapping[str, Any]) -> list[Parameter]:
    """A table `[over]`: under each key a list of values or the text that `parameter` reads.

    Of two entries for one option the last counts.
    """
    if not over:
        raise ConfigError("nothing to search over: say --over KEY=VALUES, or a table [over]")
    found: dict[str, Parameter] = {}
    for key, value in over.items():
        if isinstance(value, Mapping):  # an unquoted key with dots
            inner = parameters({f"{key}.{name}": values for name, values in value.items()})
            found |= {entry.key: entry for entry in inner}
        elif isinstance(value, list):
            found[key] = _choice(_free(key), value)
        else:
            found[key] = parameter(key, str(value))
    return list(found.values())


# ------------------------------------------------------------------------------- methods


def grid_size(space: Sequence[Parameter]) -> int:
    """How many combinations there are; ConfigError where a range is among them."""
    for entry in space:
        if isinstance(entry, Range):
            raise ConfigError(
                f"a grid wants values, not a range: {entry.key}={entry.low:g},…,{entry.high:g}; "
                "or take --method random"
            )
    return math.prod(len(entry.values) for entry in space if isinstance(entry, Choice))


def grid(space: Sequence[Parameter], seed: int) -> Propose:
    """All combinations, the last parameter changing fastest."""
    grid_size(space)
    values = [entry.values for entry in space if isinstance(entry, Choice)]
    combinations = list(itertools.product(*values))
    return lambda number, _: {
        entry.key: value for entry, value in zip(space, combinations[number], strict=True)
    }


def random(space: Sequence[Parameter], seed: int) -> Propose:
    """Values drawn independently, trial by trial: Bergstra & Bengio 2012."""

    def propose(number: int, _: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        rng = generator(seed, "search", number)
        return {
            entry.key: entry.values[rng.integers(len(entry.values))]
            if isinstance(entry, Choice)
            else _at(entry, rng.random())
            for entry in space
        }

    return propose


def _at(entry: Range, share: float) -> float | int:
    """A number of a range, `share` of the way through it, to four digits."""
    if entry.whole and not entry.log:
        return int(entry.low + math.floor(share * (entry.high - entry.low + 1)))
    low, high = (math.log(x) if entry.log else x for x in (entry.low, entry.high))
    value = low + share * (high - low)
    value = math.exp(value) if entry.log else value
    value = min(max(float(f"{value:.4g}"), entry.low), entry.high)
    return round(value) if entry.whole else value


def tpe(space: Sequence[Parameter], seed: int) -> Propose:
    """Optuna's tree-structured Parzen estimator, given the trials that are done.

    The study is made anew from their records, which are all there is to keep: any process may go
    on with it at any time. Raises ConfigError without Optuna.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("--method optuna needs Optuna: pip install 'fewshot[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    of, states = optuna.distributions, optuna.trial.TrialState

    def distribution(entry: Parameter) -> Any:
        if isinstance(entry, Choice):  # Optuna takes no lists
            return of.CategoricalDistribution([json.dumps(value) for value in entry.values])
        if entry.whole:
            return of.IntDistribution(int(entry.low), int(entry.high), log=entry.log)
        return of.FloatDistribution(entry.low, entry.high, log=entry.log)

    distributions = {entry.key: distribution(entry) for entry in space}
    chosen = {entry.key for entry in space if isinstance(entry, Choice)}

    def propose(number: int, done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        sampler = optuna.samplers.TPESampler(
            seed=int(generator(seed, "optuna", number).integers(2**32))
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for record in done:
            values = record["values"]
            failed = "score" not in record
            study.add_trial(
                optuna.trial.create_trial(
                    state=states.FAIL if failed else states.COMPLETE,
                    value=record.get("score"),
                    params={k: json.dumps(v) if k in chosen else v for k, v in values.items()},
                    distributions=distributions,
                )
            )
        params = study.ask(distributions).params
        return {k: json.loads(v) if k in chosen else v for k, v in params.items()}

    return propose


def trial_count(name: str, space: Sequence[Parameter], asked: int | None) -> int:
    """How many trials a method makes: as many as are asked for, of a grid no more than it has."""
    if name != "grid":
        return asked or 20
    return min(asked or grid_size(space), grid_size(space))


METHODS = {"grid": grid, "random": random, "optuna": tpe}


def method(name: str) -> Callable[[Sequence[Parameter], int], Propose]:
    """A method by name; ConfigError for another."""
    if name not in METHODS:
        raise ConfigError(f"unknown method '{name}': {choose_from(name, METHODS)}")
    return METHODS[name]
