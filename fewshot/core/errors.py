"""Every error a user can cause, each with the exit code the command line ends with."""

import difflib
from collections.abc import Iterable, Sequence


class FewshotError(Exception):
    """Base of all errors raised on purpose: one line that names the thing and the way out."""

    exit_code = 1


class ConfigError(FewshotError):
    """A wrong option, value or combination of parts."""

    exit_code = 2


class UnknownComponentError(ConfigError):
    """No component of that kind has the name."""


class AmbiguousComponentError(ConfigError):
    """Two plugins offer the name; only the qualified names are unique."""


class PluginError(FewshotError):
    """A plugin failed: in use, or while loading where the user asked for strictness."""

    exit_code = 3


class DataError(FewshotError):
    """Images, labels, class splits or counts that cannot be used as asked."""

    exit_code = 4


class ClassTooSmallError(DataError):
    """A class with too few images for what was asked; `named` says which, once names are known."""

    def __init__(self, class_id: int, text: str) -> None:
        super().__init__(f"class {class_id} {text}")
        self.class_id = class_id
        self.text = text

    def named(self, classes: Sequence[str]) -> DataError:
        """The same error with the class's name in place of its id."""
        return DataError(f"class '{classes[self.class_id]}' {self.text}")


class OutputError(FewshotError):
    """A run folder or file that cannot be written or read."""

    exit_code = 5


class TrainingError(FewshotError):
    """Training that cannot go on."""

    exit_code = 6


class LawError(FewshotError):
    """A component breaks a law of its kind (`fewshot check`)."""

    exit_code = 7


class InterruptedRunError(FewshotError):
    """Ctrl-C or SIGTERM in a run; `fewshot resume` goes on."""

    exit_code = 130


def choose_from(value: str, valid: Iterable[str]) -> str:
    """The way out of a wrong name: the nearest valid one, then all of them."""
    names = sorted(valid)
    if not names:
        return "there is none to choose from"
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    guess = f"did you mean '{near[0]}'? " if near else ""
    return f"{guess}valid: {', '.join(names)}"


def text_of(error: BaseException) -> str:
    """What an error says; one whose text cannot be made says that."""
    try:
        return str(error)
    except BaseException:  # a stranger's error may even ask to exit
        return "(its text cannot be made)"


def one_line(error: BaseException, limit: int = 300) -> str:
    """An error as one printable line, with its type unless it was raised on purpose.

    An error whose own text cannot be made has a line all the same.
    """
    kind = "" if isinstance(error, FewshotError) else f"{type(error).__name__}: "
    text = f"{kind}{text_of(error)}"
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
