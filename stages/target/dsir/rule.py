"""The rule: draws the captions that are likely under the target's n-grams and unlikely under the pool's."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from schemas.columns import CAPTION
from schemas.errors import CuveeError
from stages.fit import Fit
from stages.measures.divergence import kl_divergence
from stages.ngrams import Hashing, Integers, Ngrams, hash_ngrams
from stages.noise import gumbel_noise, uniform_noise
from stages.rule import Context, Rule, Verdict, drop_lines
from stages.target.dsir.weights import (
    MIN_LENGTH,
    Mode,
    log_ratio,
    resample,
    scores,
    spread,
    too_few,
    weigh,
)

Mask = npt.NDArray[np.bool_]
HELD_OUT_SHARE = 0.2


@dataclass(frozen=True)
class _Captions:
    """The pool's captions that hold a token, in uid order."""

    uids: list[str]
    ngrams: Ngrams


@dataclass(frozen=True)
class _Draw:
    """Which captions (n,) are drawn, which are long enough to be drawn, and by what."""

    chosen: Mask
    eligible: Mask
    fit: Fit


class Dsir(Rule):
    """Keeps `samples` rows, drawn by how much likelier their captions are under the target than under the pool.

    Gumbel noise is keyed by (seed, uid), ties end at uid. Captions that are null or hold no token are dropped as
    `caption_missing`, shorter than `min_length` tokens as `below_min_length`, the rest as `not_sampled_by_dsir`.
    Beyond one machine the histograms add up and each partition keeps its `samples` largest scores, with equal results.
    Learned: the log ratio of each bucket and the deviation that scores are divided by. Pinned, a caption's score never
    changes; still exactly `samples` rows are drawn, so a row that was not drawn is not drawn from more rows either.
    """

    version: ClassVar[int] = 2

    kind: Literal["dsir"] = "dsir"
    target: Literal["target"] = "target"
    samples: int = Field(gt=0)
    mode: Mode = "caption"
    ngrams: int = Field(2, ge=1, le=5)
    buckets: int = Field(10_000, ge=2, le=2**24)
    tokenizer: Literal["wordpunct"] = "wordpunct"
    smoothing: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Caption mode: share of the pool's n-grams to one of the target's, default 1. Exact: pseudo-count, default 0."""
    min_length: int | None = Field(None, ge=1)
    """Tokens; default 1 in caption mode, 100 in exact mode."""

    def columns(self) -> tuple[str, ...]:
        """The captions, of the pool and of the target."""
        return (CAPTION.name,)

    def needs_target(self) -> bool:
        """Always."""
        return True

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Fit both n-gram distributions, or take the pinned ratio; weigh every caption, draw.

        Raises:
            CuveeError: the target has no caption with a token, or fewer rows are eligible than `samples`.
        """
        target_uids, target = self._target(context)
        table = rows.select("uid", CAPTION.name).sort("uid").collect()
        every = self._hash(table)
        worded = every.tokens > 0
        if not worded.any():
            raise too_few(self.samples, 0)
        captions = _Captions(table["uid"].filter(pl.Series(worded)).to_list(), every.only(worded))
        drawn = self._draw(captions, context.fit or self._ratio(captions, target.histogram()), context.seed)
        chosen, eligible = drawn.chosen, drawn.eligible
        found = table.filter(pl.Series(worded))
        dropped = [
            drop_lines(table.filter(pl.Series(~worded)), "caption_missing"),
            drop_lines(found.filter(pl.Series(~eligible)), "below_min_length"),
            drop_lines(found.filter(pl.Series(eligible & ~chosen)), "not_sampled_by_dsir"),
        ]
        evidence = {
            "mode": self.mode,
            "eligible": int(eligible.sum()),
            "tokens": {
                "pool": _mean(captions.ngrams.tokens),
                "selected": _mean(captions.ngrams.tokens[chosen]),
                "target": _mean(target.tokens),
            },
            "kl": _divergences(captions, target.histogram(), chosen, eligible, context.seed),
            "kl_held_out": None if context.fit else self._held_out(captions, target_uids, target, context.seed),
        }
        return Verdict(pl.concat(dropped).sort("uid"), evidence=evidence, fit=drawn.fit)

    def _ratio(self, captions: _Captions, target: Integers) -> Fit:
        """What is known of the fit before any caption is weighed."""
        return Fit({"log_ratio": log_ratio(target, captions.ngrams.histogram(), self.mode, self.smoothing)})

    def _draw(self, captions: _Captions, fit: Fit, seed: int) -> _Draw:
        weights = weigh(captions.ngrams, fit.arrays["log_ratio"], self.mode)
        shortest = MIN_LENGTH[self.mode] if self.min_length is None else self.min_length
        eligible = weights.length >= shortest
        places = np.flatnonzero(eligible)
        noise = gumbel_noise([captions.uids[place] for place in places], seed, "dsir")
        deviation = fit.facts["deviation"] if "deviation" in fit.facts else spread(weights.log[eligible])
        chosen = np.zeros_like(eligible)
        chosen[places[resample(scores(weights.log[eligible], self.mode, deviation), self.samples, noise)]] = True
        return _Draw(chosen, eligible, Fit(fit.arrays, {"deviation": deviation}))

    def _held_out(self, captions: _Captions, uids: list[str], target: Ngrams, seed: int) -> dict[str, Any] | None:
        """The divergences on a fifth of the target, for a second draw fitted without it; None for a tiny target."""
        outside = uniform_noise(uids, seed, "dsir evidence") < HELD_OUT_SHARE
        if not outside.any() or outside.all():
            return None
        drawn = self._draw(captions, self._ratio(captions, target.histogram(~outside)), seed)
        return _divergences(captions, target.histogram(outside), drawn.chosen, drawn.eligible, seed)

    def _target(self, context: Context) -> tuple[list[str], Ngrams]:
        if context.target is None:
            raise CuveeError("dsir needs a target and got none; add `target: {shards: ...}` to the recipe")
        table = context.target.select("uid", CAPTION.name).sort("uid").collect()
        ngrams = self._hash(table)
        worded = ngrams.tokens > 0
        if not worded.any():
            raise CuveeError(
                f"none of the target's {len(table)} samples has a caption; dsir compares captions, so name target "
                f"shards with a .txt member, or leave dsir out"
            )
        return table["uid"].filter(pl.Series(worded)).to_list(), ngrams.only(worded)

    def _hash(self, table: pl.DataFrame) -> Ngrams:
        hashing: Hashing = "sha256" if self.mode == "exact" else "xxh3"
        return hash_ngrams(table[CAPTION.name].fill_null("").to_list(), self.ngrams, self.buckets, hashing)


def _divergences(captions: _Captions, target: Integers, chosen: Mask, eligible: Mask, seed: int) -> dict[str, float]:
    """KL(target || x) in nats for x = selected, pool, and a random draw of the same size from the eligible rows.

    Compare `selected` with `random`: the pseudo-counts weigh more in a small set than in the whole pool.
    """
    order = np.argsort(uniform_noise(captions.uids, seed, "dsir random"), kind="stable")
    random = np.zeros_like(chosen)
    random[order[eligible[order]][: int(chosen.sum())]] = True
    compared = {"selected": chosen, "pool": None, "random": random}
    return {name: kl_divergence(target, captions.ngrams.histogram(rows)) for name, rows in compared.items()}


def _mean(tokens: Integers) -> float:
    return float(tokens.mean()) if len(tokens) else 0.0
