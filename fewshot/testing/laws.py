"""What a law is: a sentence, the examples it is tried on, and the smallest one that breaks it."""

import inspect
import os
import random
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import mlx.nn as nn
import numpy as np
from attrs import frozen
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.errors import FlakyFailure, HypothesisException
from numpy.typing import NDArray

from ..catalogue.kinds import asked_for
from ..compute.modules import late_parameters, parameter_shapes
from ..compute.randomness import keyed
from ..core.errors import FewshotError

ULP = float(np.finfo(np.float32).eps)

# The same examples every time, as a command that ends in an exit code wants it.
STEADY = settings(derandomize=True, max_examples=30)

# Arrays with more numbers than this are told by their shape.
_SHOWN = 16


@frozen
class Outcome:
    """What became of one law: `example` is what breaks it, None where it is kept.

    `raised`: the kind and place of the error that the component raised, where that broke it.
    """

    law: "Law"
    example: str | None
    raised: str | None = None


class LawBroken(AssertionError):  # noqa: N818
    """Parts break laws: `law` and `example` are the first one's, `broken` has all, by part."""

    def __init__(self, broken: Mapping[str, Sequence[Outcome]]) -> None:
        self.broken = dict(broken)
        outcomes = [outcome for each in broken.values() for outcome in each]
        self.law, self.example = outcomes[0].law.name, outcomes[0].example
        super().__init__("\n".join(_report(part, each) for part, each in broken.items()))


def _report(part: str, outcomes: Sequence[Outcome]) -> str:
    lines = [f"  {o.law.name}: {o.law.says}\n    {o.example}" for o in outcomes]
    return "\n".join([f"{part} breaks {', '.join(o.law.name for o in outcomes)}", *lines])


class _Example(Exception):  # noqa: N818
    """Words for an example that breaks a law; `raised` as in `Outcome`."""

    def __init__(self, words: str, raised: str | None = None) -> None:
        super().__init__(words)
        self.raised = raised


def fail(example: str) -> NoReturn:
    """The example breaks the law."""
    raise _Example(example)


def _always(_: Any) -> bool:
    return True


@frozen
class Law:
    """What must be true of a component.

    `holds(subject, **drawn)` fails where it is not. `examples`: a strategy for each thing drawn, or
    a function from the subject to one; without any the law is tried once. `when`: whether it is
    demanded of this subject.
    """

    name: str
    says: str
    holds: Callable[..., None]
    examples: Mapping[str, Any]
    when: Callable[[Any], bool]

    def try_on(self, subject: Any, profile: settings | None = None) -> Outcome:
        """The smallest example that breaks the law; an error that the component raises does too.

        `profile`: how many examples are tried, and which; else Hypothesis's own.
        """

        def once(drawn: Mapping[str, Any]) -> None:
            try:
                self.holds(subject, **drawn)
            except (_Example, HypothesisException):
                raise
            except Exception as error:
                raised = f"{type(error).__name__} in {_place(error)}"
                example = f"{raised}: {error}{' for ' * bool(drawn)}{told(**drawn)}"
                raise _Example(example, raised) from error

        try:
            with keyed(0, self.name):  # the same verdict every time
                if not self.examples:
                    once({})
                else:
                    strategies = {
                        name: each if isinstance(each, st.SearchStrategy) else each(subject)
                        for name, each in self.examples.items()
                    }
                    once_each = given(st.fixed_dictionaries(strategies))(once)
                    _to_the_end(profile)(once_each)()
        except _Example as error:
            return Outcome(self, str(error), error.raised)
        except FlakyFailure as error:  # broken once, kept when asked again
            return Outcome(self, f"not always: {error.exceptions[0]}")
        return Outcome(self, None)


def _to_the_end(profile: settings | None) -> settings:
    """The profile, but for what makes the smallest example one error."""
    profile = profile or settings()
    return settings(
        profile,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        phases=[phase for phase in profile.phases if phase in (Phase.generate, Phase.shrink)],
        suppress_health_check=list(HealthCheck),
    )


def law(
    when: Callable[[Any], bool] = _always, **examples: Any
) -> Callable[[Callable[..., None]], Law]:
    """The function as a `Law`: its name is the law's, its docstring what the law says."""

    def made(holds: Callable[..., None]) -> Law:
        says = " ".join((inspect.getdoc(holds) or "").split())
        return Law(holds.__name__.replace("_", " "), says, holds, examples, when)

    return made


@frozen
class Kind:
    """The laws of one kind of component, the first of which says what it is.

    `subject(factory, options)`: what the laws are tried on.
    """

    name: str
    subject: Callable[[Any, Any], Any]
    laws: tuple[Law, ...]

    def demanded(
        self, factory: Any, options: Any, profile: settings | None = None
    ) -> Iterator[Outcome]:
        """Try every law; the others are left where the first is broken.

        An error of one place that breaks several laws is told of the first only. Raises the
        FewshotError with which the factory refuses these options.
        """
        first, *others = self.laws
        try:
            with keyed(0, self.name):  # the same verdict every time
                subject = self.subject(factory, options)
        except FewshotError:
            raise
        except Exception as error:
            yield Outcome(first, f"the factory raised {type(error).__name__}: {error}")
            return
        outcome = first.try_on(subject, profile)
        yield outcome
        if outcome.example is not None:
            return
        raised: set[str] = set()
        for each in others:
            if each.when(subject):
                outcome = each.try_on(subject, profile)
                if outcome.raised not in raised:
                    yield outcome
                if outcome.raised is not None:
                    raised.add(outcome.raised)

    def check(self, factory: Any, options: Any) -> None:
        """Raise LawBroken, with all laws that are broken."""
        broken = [o for o in self.demanded(factory, options) if o.example is not None]
        if broken:
            name = getattr(factory, "name", None) or getattr(factory, "__name__", repr(factory))
            raise LawBroken({f"{self.name} '{name}'": broken})


def laws_of(module: Mapping[str, Any]) -> tuple[Law, ...]:
    """The laws of a module's namespace, as they stand there."""
    return tuple(each for each in module.values() if isinstance(each, Law))


@contextmanager
def leaving_no_files() -> Iterator[None]:
    """What Hypothesis writes goes to a folder that is removed, not to `.hypothesis` here."""
    with TemporaryDirectory() as folder:
        set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            set_hypothesis_home_dir(None)


# ------------------------------------------------------------------------------- modules


def made_by(factory: Callable[..., Any], options: Any, embedding_dim: int = 8) -> Any:
    """What a factory makes, given what it has a parameter for: the length of embeddings, names."""
    known = {"embedding_dim": embedding_dim, "has_text": True}
    return factory(options, **asked_for(factory, known))


def evaluated(part: Any) -> Any:
    """A metric or a loss as it is used outside of training: a module in eval mode."""
    if isinstance(getattr(part, "fn", None), nn.Module):
        part.fn.eval()
    return part


def require_made(module: nn.Module, ask: Callable[[], object]) -> None:
    """Fail where asking a module changes which parameters it has, or their shapes."""
    before = parameter_shapes(module)
    ask()
    if late := late_parameters(module, before):
        fail(f"'{late[0]}' is no parameter before the first call, or of another shape")


# -------------------------------------------------------------------------------- words


# Where an error's own place is not looked for: it is in what called these.
_OTHERS = tuple(f"{Path(file).parent}{os.sep}" for file in (__file__, np.__file__, nn.__file__))


def _place(error: Exception) -> str:
    """`metric.py, line 12`: where the component was when it raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_OTHERS)] or frames
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}"


def told(**values: Any) -> str:
    """`x = [0.0, 1.0], power = 3`."""
    return ", ".join(f"{name} = {_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, tuple) and any(isinstance(part, np.ndarray) for part in value):
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, np.generic):
        return str(value)
    if not isinstance(value, np.ndarray):
        return repr(value)
    if value.size > _SHOWN:
        return f"{value.dtype} {value.shape}"
    return f"[{', '.join(map(_value, value))}]"


def first(wrong: NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Where the first True is, or None."""
    places = np.argwhere(wrong)
    return tuple(places[0].tolist()) if len(places) else None


# ------------------------------------------------------------------------------- global


def touches_global_random_numbers(action: Callable[[], Any]) -> bool:
    """Whether an action draws from or seeds `random` or `np.random`, which are put back."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(271828)
    np.random.seed(271828)  # noqa: NPY002
    before = _next_numbers()
    random.seed(271828)
    np.random.seed(271828)  # noqa: NPY002
    try:
        action()
        return _next_numbers() != before
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _next_numbers() -> tuple[float, float]:
    return random.random(), float(np.random.random())  # noqa: NPY002
