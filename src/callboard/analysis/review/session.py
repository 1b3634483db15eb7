"""A review in progress: verdicts given, items skipped, what comes next, and the way back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

from callboard.analysis.review.verdict_files import ReviewItem, VerdictStore
from callboard.core.errors import UserError
from callboard.data.corrections import VERDICTS

SKIP = "skip"
"""Answer that passes an item without a verdict."""


class StaleAnswerError(UserError):
    """An answer of a page that does not know of one given in a different window."""


@dataclass(frozen=True)
class ReviewQueue:
    """Items in the order in which they are judged, and where their verdicts go."""

    title: str
    items: Sequence[ReviewItem]
    store: VerdictStore
    ending: str
    """Sentence on what is done with the verdicts when the review ends."""
    following: Sequence[str]
    """Commands that use the verdicts."""
    finish: Callable[[], str] = str
    """Do what `ending` says, and return the result as a sentence."""


@dataclass
class ReviewSession:
    """State of a review, which all open pages share; methods can be called from several threads."""

    queue: ReviewQueue
    verdicts: dict[int, str] = field(init=False)
    """Verdicts by number of the item, in the order in which they were given."""
    _skipped: set[int] = field(default_factory=set, init=False)
    _history: list[tuple[int, str]] = field(default_factory=list, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        self.verdicts = {number: item.verdict for number, item in enumerate(self.queue.items) if item.verdict}
        self._n_before = len(self.verdicts)

    def answer(self, number: int, answer: str) -> None:
        """Give a verdict, or skip the item.

        Args:
            number: Number of the item.
            answer: One of VERDICTS, or SKIP.

        Raises:
            StaleAnswerError: The item has a verdict.
            UserError: The table cannot be written; the verdict does not count.
        """
        with self._lock:
            if number in self.verdicts:
                raise StaleAnswerError(
                    f"already judged {self.verdicts[number]!r} in a different window; this verdict was kept"
                )
            if answer == SKIP:
                self._skipped.add(number)
            else:
                self._write({**self.verdicts, number: answer})
                self._skipped.discard(number)
            self._history.append((number, answer))

    def undo(self, number: int) -> None:
        """Take the last answer back.

        Args:
            number: Number of the item that it is about, as the page believes.

        Raises:
            StaleAnswerError: The last answer is about a different item, or there is none.
            UserError: The table cannot be written; the verdict still counts.
        """
        with self._lock:
            if not self._history:
                raise StaleAnswerError("nothing to undo since the review was started")
            last, answer = self._history[-1]
            if last != number:
                raise StaleAnswerError(
                    "the last answer was given in a different window; undo again takes that one back"
                )
            if answer == SKIP:
                self._skipped.discard(last)
            else:
                self._write({key: verdict for key, verdict in self.verdicts.items() if key != last})
            self._history.pop()

    def _write(self, verdicts: dict[int, str]) -> None:
        self.queue.store.write(verdicts)
        self.verdicts = verdicts

    def take_up_skipped(self) -> None:
        """Return skipped items to the queue."""
        with self._lock:
            self._skipped.clear()

    def upcoming(self, number: int | None = None, most: int = 3) -> list[int]:
        """Return the next items without an answer by number: those after `number`, then those before it."""
        after = -1 if number is None else number
        order = [*range(after + 1, len(self.queue.items)), *range(after + 1)]
        return [one for one in order if one not in self.verdicts and one not in self._skipped][:most]

    @property
    def last(self) -> int | None:
        """Number of the item of the last answer, which `undo` takes back; None without one."""
        return self._history[-1][0] if self._history else None

    @property
    def n_skipped(self) -> int:
        """Number of items that were passed without a verdict."""
        return len(self._skipped)

    @property
    def n_new(self) -> int:
        """Number of verdicts since the review was started."""
        return len(self.verdicts) - self._n_before

    def by_species(self) -> list[dict[str, str | int]]:
        """Count the verdicts of each species: `species`, and a number for each of VERDICTS."""
        counts: dict[str, dict[str, int]] = {}
        for number, verdict in self.verdicts.items():
            of_species = counts.setdefault(self.queue.items[number].species, dict.fromkeys(VERDICTS, 0))
            of_species[verdict] += 1
        return [{"species": species, **counts[species]} for species in sorted(counts)]
