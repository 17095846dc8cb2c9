"""What every mixer that optimises may be told: repetition caps, least and largest shares, nearness to a prior.

    lower_i <= p_i <= upper_i,   upper_i = min(max_share_i, max_repeats n_i / N, 1),   lower_i = min_share_i

for n_i surviving rows of source i and N samples to draw, and the penalty prior_strength KL(p || prior). Shares p exist
iff lower <= upper and sum lower <= 1 <= sum upper; where they do not, the two limits that collide are named.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import CuveeError

Doubles = npt.NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]
PriorShare = Annotated[float, Field(gt=0, allow_inf_nan=False)]

UNLIMITED = 2**31 - 1
"""`max_repeats: null`: as often as `repeats`, an int32, can say."""
AT_LIMIT = 1e-6
"""Shares are reported in millionths: a limit this near binds."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Bounds:
    """Least and largest shares, and the setting behind each; some point of the simplex lies within."""

    lower: Doubles
    """(S,) in [0, 1]."""
    upper: Doubles
    """(S,) in [0, 1]."""
    why_lower: tuple[str, ...]
    """(S,) e.g. `min_share: photos`; empty where nothing was asked for."""
    why_upper: tuple[str, ...]
    """(S,) e.g. `max_repeats: photos` or `max_share: photos`; empty where the limit is 1."""

    def binding(self, shares: Doubles) -> tuple[str, ...]:
        """The limits that shares (S,) lie at, least shares first."""
        low = [why for why, gap in zip(self.why_lower, shares - self.lower, strict=True) if why and gap <= AT_LIMIT]
        high = [why for why, gap in zip(self.why_upper, self.upper - shares, strict=True) if why and gap <= AT_LIMIT]
        return (*low, *high)

    def hold(self, shares: Doubles) -> bool:
        """Whether shares (S,) lie within, but for rounding."""
        return bool((shares >= self.lower - ROUNDING).all() and (shares <= self.upper + ROUNDING).all())


class Limits(BaseModel):
    """Settings that optimising mixers inherit: `class OptimalTransport(Limits, Mixer)`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_repeats: int | None = Field(4, ge=1, le=UNLIMITED)
    """How often one row may be drawn at most; null lifts the cap."""
    min_share: Share | dict[str, Share] = 0.0
    """Least share: one number for every source, or by source (0 for those that are not named)."""
    max_share: Share | dict[str, Share] = 1.0
    """Largest share: one number for every source, or by source (1 for those that are not named)."""
    prior: Literal["natural", "uniform"] | dict[str, PriorShare] = "natural"
    """What `prior_strength` draws to: shares of the decodable pool, equal shares, or a number > 0 by source."""
    prior_strength: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Weight of KL(p || prior) in the objective, in the objective's unit; 0 forgets the prior."""

    def repeats_allowed(self) -> int:
        """`max_repeats`."""
        return UNLIMITED if self.max_repeats is None else self.max_repeats

    def bounds(
        self, names: Sequence[str], rows: npt.ArrayLike, samples: int, known: Collection[str] | None = None
    ) -> Bounds:
        """The limits of shares of S sources, in the order of `names`.

        Args:
            names: sources with surviving rows.
            rows: (S,) surviving rows of each, >= 1.
            samples: rows to draw, repeats included, >= 1.
            known: every source of the pool, if some have no rows left; a limit may name one of these, too.

        Raises:
            CuveeError: a limit names no source of the pool, or no shares are within the limits; says which two collide.
        """
        counts = np.asarray(rows, np.float64)
        self.refuse_unknown({*names, *(known or ())})
        self._refuse_gone(names)
        self._refuse_too_many(counts, samples)
        cap = np.minimum(1.0, self.repeats_allowed() * counts / samples)
        most = np.array([_of(self.max_share, name, 1.0) for name in names])
        lower = np.array([_of(self.min_share, name, 0.0) for name in names])
        upper = np.minimum(cap, most)
        setting = ["max_repeats" if c <= m else "max_share" for c, m in zip(cap, most, strict=True)]
        why_lower = tuple(f"min_share: {name}" if low > 0 else "" for name, low in zip(names, lower, strict=True))
        why_upper = tuple(f"{s}: {n}" if u < 1 else "" for s, n, u in zip(setting, names, upper, strict=True))
        found = Bounds(lower, upper, why_lower, why_upper)
        self._refuse_crossed(names, found, counts, samples)
        self._refuse_sums(names, found)
        return found

    def prior_shares(self, names: Sequence[str], natural: Mapping[str, float]) -> Doubles:
        """(S,) the prior's shares of the sources that are here, > 0 and summing to 1.

        Raises:
            CuveeError: the prior names no share for a source, or for one that the pool does not have.
        """
        if self.prior == "uniform":
            return np.full(len(names), 1 / len(names))
        if isinstance(self.prior, dict):
            _refuse_name("prior", self.prior, {*names, *natural})
        given = natural if self.prior == "natural" else self.prior
        if missing := [name for name in names if not given.get(name, 0.0) > 0]:
            raise CuveeError(
                f"the prior gives source {missing[0]!r} no share above 0; name one for each of {', '.join(names)} "
                "(to leave a source out, set its max_share to 0)"
            )
        shares = np.array([given[name] for name in names], np.float64)
        normal: Doubles = shares / shares.sum()
        return normal

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Refuse a limit or a prior that names a source which is not among `known`, those of the pool.

        Raises:
            CuveeError: with the nearest name.
        """
        for setting, value in (("min_share", self.min_share), ("max_share", self.max_share), ("prior", self.prior)):
            if isinstance(value, dict):
                _refuse_name(setting, value, known)

    def _refuse_gone(self, names: Sequence[str]) -> None:
        asked = self.min_share if isinstance(self.min_share, dict) else {}
        for name, least in sorted(asked.items()):
            if least > 0 and name not in names:
                raise CuveeError(
                    f"min_share of {name!r} is {least:g}, but it has no surviving rows to draw; loosen the rules or "
                    "drop that min_share"
                )

    def _refuse_too_many(self, counts: Doubles, samples: int) -> None:
        possible = self.repeats_allowed() * int(counts.sum())
        if samples > possible:
            raise CuveeError(
                f"{samples} samples are asked for, but {int(counts.sum())} surviving rows drawn at most "
                f"{self.max_repeats} times give {possible}; lower export.samples, raise max_repeats or loosen the rules"
            )

    def _refuse_crossed(self, names: Sequence[str], bounds: Bounds, counts: Doubles, samples: int) -> None:
        for i, name in enumerate(names):
            if bounds.lower[i] <= bounds.upper[i]:
                continue
            setting = bounds.why_upper[i].split(":")[0]
            how = f" ({self.max_repeats} x {int(counts[i])} rows of {samples} samples)" if "repeats" in setting else ""
            raise CuveeError(
                f"min_share of {name!r} is {bounds.lower[i]:g}, but {setting} allows it {bounds.upper[i]:g}{how}; "
                f"lower the one or raise the other"
            )

    def _refuse_sums(self, names: Sequence[str], bounds: Bounds) -> None:
        least, most = float(bounds.lower.sum()), float(bounds.upper.sum())
        if least > 1 + ROUNDING:
            listed = _listed(names, bounds.lower)
            raise CuveeError(f"the min_shares add up to {least:g} ({listed}), but shares add up to 1; lower them")
        if most < 1 - ROUNDING:
            kinds = sorted({why.split(":")[0] for why in bounds.why_upper})
            raise CuveeError(
                f"{' and '.join(kinds)} allow all sources together {most:g} ({_listed(names, bounds.upper)}), but "
                f"shares add up to 1; raise {' or '.join(kinds)}"
            )


def _of(value: float | dict[str, float], name: str, default: float) -> float:
    return value.get(name, default) if isinstance(value, dict) else value


def _refuse_name(setting: str, named: Collection[str], known: Collection[str]) -> None:
    for name in sorted(set(named) - set(known)):
        close = get_close_matches(name, sorted(known), 1, 0.6)
        hint = f"did you mean {close[0]!r}?" if close else f"sources are {', '.join(sorted(known))}"
        raise CuveeError(f"{setting} names source {name!r}, which the pool does not have; {hint}")


def _listed(names: Sequence[str], shares: Doubles) -> str:
    """At most five sources with their limits, those that matter first."""
    order = sorted(range(len(names)), key=lambda i: (-shares[i], names[i]))
    rest = f" and {len(order) - 5} more" if len(order) > 5 else ""
    return ", ".join(f"{names[i]} {shares[i]:g}" for i in order[:5]) + rest
