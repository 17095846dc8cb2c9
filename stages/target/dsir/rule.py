"""The rule: draws the captions that are likely under the target's n-grams and unlikely under the pool's."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from schemas.columns import CAPTION
from stages.fit import Fit
from stages.ngrams import Doubles
from stages.noise import gumbel_noise
from stages.rule import Context, drop_lines
from stages.selector import Ranking, Selector
from stages.target.dsir.captions import Features, Pool
from stages.target.dsir.draw import Draw, Lottery
from stages.target.dsir.evidence import Counted, count_draws
from stages.target.dsir.targets import TARGET, Target, Targets, read_target
from stages.target.dsir.weights import BUCKETS, MIN_LENGTH, SHARPNESS, Mode, log_ratio
from stages.tokens import Integers


class Dsir(Selector):
    """Keeps the budget's worth of rows, drawn by how much likelier their captions are under the target than the pool.

    Gumbel noise is keyed by (seed, uid). Captions that are null or hold no token are dropped as `caption_missing`,
    shorter than `min_length` tokens as `below_min_length`, the rest as `not_sampled_by_dsir`. A score is a weight, the
    row's importance, with its noise. Several `targets`, each `target` or one of the recipe's references, draw their
    shares in turn, by default as their n-grams count; both are then measured from the border of the target that the row
    is highest above, see `draw.py`. A budget of tokens is shared out as rows of mean length.

    Over parts the histograms add up and a caption's weight depends on nothing else, so the verdicts are equal.
    Learned: each target's log ratio of each bucket, the deviation that its weights are divided by, its share. Pinned, a
    caption's weight never changes; still the budget is drawn, so a row that was not drawn is not drawn from more rows.
    """

    version: ClassVar[int] = 5

    kind: Literal["dsir"] = "dsir"
    target: str = TARGET
    targets: Targets | None = None
    """Instead of one target: {name: share, ...}, or names without shares; they draw in this order."""
    mode: Mode = "caption"
    ngrams: int = Field(2, ge=1, le=5)
    buckets: int | None = Field(None, ge=2, le=2**24)
    """Default 2^18 in caption mode, 10,000 in exact mode."""
    tokenizer: Literal["wordpunct"] = "wordpunct"
    smoothing: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Caption mode: share of the pool's n-grams to one of the target's, default 10. Exact: pseudo-count, default 0."""
    sharpness: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Caption mode only: standard deviation of the weights, default 4, beside Gumbel noise of 1.28."""
    min_length: int | None = Field(None, ge=1)
    """Tokens; default 1 in caption mode, 100 in exact mode."""

    @model_validator(mode="after")
    def _sensible(self) -> "Dsir":
        if self.mode == "exact" and self.sharpness is not None:
            raise ValueError(
                "`sharpness` belongs to `mode: caption`; the published method draws by its weights as they are"
            )
        if self.targets is None:
            return self
        if "target" in self.model_fields_set:
            raise ValueError("found `target` and `targets`; name one of them")
        names, shares = zip(*self.targets, strict=True)
        if len(set(names)) < len(names):
            raise ValueError(f"`targets` names one twice: {', '.join(names)}")
        given = [share for share in shares if share is not None]
        if given and (len(given) < len(names) or abs(sum(given) - 1) > 1e-9):
            raise ValueError(f"found the shares {list(shares)}; give every target one, adding up to 1, or none")
        return self

    def names(self) -> tuple[str, ...]:
        """The targets in the order in which they draw."""
        return tuple(name for name, _ in self.targets) if self.targets else (self.target,)

    def reads(self) -> tuple[str, ...]:
        """The captions, of the pool and of the targets."""
        return (CAPTION.name,)

    def needs_target(self) -> bool:
        """True unless all targets are references."""
        return TARGET in self.names()

    def needs_references(self) -> tuple[str, ...]:
        """The targets that are not the recipe's target."""
        return tuple(name for name in self.names() if name != TARGET)

    def reason(self) -> str:
        """What a draw leaves out is not necessarily ranked low."""
        return "not_sampled_by_dsir"

    def rank(self, rows: pl.LazyFrame, context: Context) -> Ranking:
        """Fit the n-gram distributions, or take the pinned ratios; weigh every caption, draw.

        Raises:
            CuveeError: a target or the pool has no caption with a token, or the budget is more than there is.
        """
        features = Features(self.ngrams, self.buckets or BUCKETS[self.mode], self.mode)
        targets = {name: read_target(name, context, features) for name in self.names()}
        pool = Pool(rows.select("uid", CAPTION.name), context, features)
        if not pool.whole.any():
            self.rows(0, others=drop_lines(rows.select("uid").collect(), "caption_missing"))
        fit = context.fit or self._learn(targets, pool.whole)
        tests = {} if context.fit else self._tests(targets, fit, pool.whole)
        weighed = pool.weigh([*(fit.arrays[name] for name in targets), *tests.values()])
        eligible, dropped = self._eligible(weighed, rows, context)
        self.affordable(rows, eligible, dropped, context)
        draws = self._draws(eligible, fit, bool(tests), context.seed)
        chosen = [draw.chosen for draw in draws]
        evidence = {
            "mode": self.mode,
            "words": {
                "pool": weighed["words"].filter(weighed["words"] > 0).mean(),
                "selected": eligible["words"].filter(pl.Series(chosen[0])).mean(),
            },
            "targets": _nearness(targets, fit, count_draws(pool, eligible, chosen, context.seed)),
        }
        deviations = dict(zip(targets, draws[0].deviations, strict=True))
        learned = context.fit or Fit(fit.arrays, {**fit.facts, "deviations": deviations})
        columns = (pl.Series("score", draws[0].score), pl.Series("importance", draws[0].importance))
        ranked = eligible.select("uid", *columns)
        return Ranking(ranked, dropped, evidence, learned)

    def _draws(self, eligible: pl.DataFrame, fit: Fit, tested: bool, seed: int) -> list[Draw]:
        """The draw, and if it is to be `tested` the one by the weights that know nothing of what is held out."""
        names, uids = self.names(), eligible["uid"].to_list()
        noise = [gumbel_noise(uids, seed, "dsir" if name == TARGET else f"dsir {name}") for name in names]
        shares = [fit.facts["shares"][name] for name in names]
        sharpness = None if self.mode == "exact" else self.sharpness or SHARPNESS
        lottery = Lottery(eligible, self, shares, noise, sharpness, seed)
        known = fit.facts.get("deviations")
        draws = [lottery.draw(0, known and [known[name] for name in names])]
        return [*draws, lottery.draw(len(names))] if tested else draws

    def _learn(self, targets: Mapping[str, Target], whole: Integers) -> Fit:
        """What is known of the fit before any caption is weighed."""
        ratios = {name: self._ratio(target.ngrams.histogram(), whole) for name, target in targets.items()}
        counts = {name: int(target.ngrams.counts().sum()) for name, target in targets.items()}
        given = {name: share for name, share in self.targets or () if share is not None}
        return Fit(ratios, {"shares": given or {name: count / sum(counts.values()) for name, count in counts.items()}})

    def _tests(self, targets: Mapping[str, Target], fit: Fit, whole: Integers) -> dict[str, Doubles]:
        """The ratios without what each target holds out; none where all are too small for that."""
        fitted = {
            name: target.ngrams.histogram(~target.held_out) for name, target in targets.items() if target.testable
        }
        ratios = {name: self._ratio(histogram, whole) for name, histogram in fitted.items()}
        return {name: ratios.get(name, fit.arrays[name]) for name in targets} if ratios else {}

    def _ratio(self, target: Integers, whole: Integers) -> Doubles:
        return log_ratio(target, whole, self.mode, self.smoothing)

    def _eligible(
        self, weighed: pl.DataFrame, rows: pl.LazyFrame, context: Context
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Which can be drawn, in uid order, and the verdict on the others."""
        table = weighed.sort("uid")
        worded = table.filter(pl.col("words") > 0)
        missing = drop_lines(table.filter(pl.col("words") == 0), "caption_missing")
        long = pl.col("length") >= (MIN_LENGTH[self.mode] if self.min_length is None else self.min_length)
        short = drop_lines(worded.filter(~long), "below_min_length")
        eligible = worded.filter(long)
        return self.counted(rows, eligible, context), pl.concat([missing, short])


def _nearness(targets: Mapping[str, Target], fit: Fit, draws: Sequence[Counted]) -> dict[str, Any]:
    """Per target its share, its words, and the divergences; those on its held-out part are of the second draw."""
    found = {}
    for name, target in targets.items():
        tested = len(draws) > 1 and target.testable
        found[name] = {
            "share": fit.facts["shares"][name],
            "words": float(target.ngrams.tokens.mean()),
            "kl": draws[0].divergences(target.ngrams.histogram()),
            "kl_held_out": draws[1].divergences(target.ngrams.histogram(target.held_out)) if tested else None,
        }
    return found
