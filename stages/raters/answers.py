"""Probabilities of all admissible answers from next-token probabilities, for any tokenizer, without generating.

An answer is a path of tokens: "75" is one token here, two there ("7", "5"), and "7" may go on to "75". The paths form a
trie; the probability of an answer is the product along its path, times the probability that it ends there if
other paths go on. What is left after all answers is the probability of saying something else.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Path = tuple[int, ...]
Logs = npt.NDArray[np.float64]
Tokenize = Callable[[str], Sequence[int]]


@dataclass(frozen=True)
class AnswerTrie:
    """The token paths of all answers to one question."""

    paths: tuple[tuple[Path, int], ...]
    """(tokens, number of the answer); an answer may have several."""
    answers: int
    going_on: frozenset[int]
    """Tokens that, said after a number, make it another number."""

    @classmethod
    def of(cls, answers: Sequence[str], tokenize: Tokenize, digits: Iterable[int]) -> "AnswerTrie":
        """Every answer as it is said at the beginning of a turn and after a space.

        Args:
            answers: as they are spelled.
            tokenize: what is said to token ids, as they stand behind the prompt's.
            digits: tokens that begin with a digit.
        """
        found = {
            tuple(tokenize(spelling)): number
            for number, answer in enumerate(answers)
            for spelling in (f" {answer}", answer)
        }
        numeric = all(answer.isdecimal() for answer in answers)
        return cls(tuple(sorted(found.items())), len(answers), frozenset(digits if numeric else ()))

    def inner(self) -> dict[Path, set[int]]:
        """Every path that goes on, the empty one too, and with which tokens."""
        found: dict[Path, set[int]] = {}
        for path, _ in self.paths:
            for depth, token in enumerate(path):
                found.setdefault(path[:depth], set()).add(token)
        return found

    def asked(self) -> list[Path]:
        """What a model is asked after beside the prompt itself, shortest first; nothing where answers are tokens."""
        return sorted((path for path in self.inner() if path), key=lambda path: (len(path), path))

    def probabilities(self, after: Mapping[Path, Logs]) -> Logs:
        """(answers,) the probability of each; their sum is that of answering at all, at most 1.

        All are NaN where one of `after` is no distribution.

        Args:
            after: per inner path, the log-probabilities (vocabulary,) of the next token.
        """
        if any(np.isnan(logs).any() for logs in after.values()):
            return np.full(self.answers, np.nan)
        inner = self.inner()
        found = np.zeros(self.answers)
        for path, number in self.paths:
            chance = np.exp(sum(float(after[path[:depth]][token]) for depth, token in enumerate(path)))
            if path in inner:
                others = sorted(inner[path] | self.going_on)
                chance *= max(0.0, 1.0 - float(np.exp(after[path][others]).sum()))
            found[number] += chance
        return found


def expectation(values: Sequence[float], probabilities: Logs) -> tuple[float, float]:
    """(mean of the values under the renormalised probabilities, their sum before that).

    Without any probability the mean is the middle of the values.
    """
    mass = float(probabilities.sum())
    if mass <= 0.0:
        return (min(values) + max(values)) / 2, 0.0
    return float(np.dot(np.asarray(values, np.float64), probabilities) / mass), min(1.0, mass)
