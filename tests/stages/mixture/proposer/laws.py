"""Laws with known shapes, for programs whose optimum brute force can find."""

from dataclasses import dataclass

import numpy as np

from stages.mixture.proposer import Box, Metric, Program, program

Doubles = np.ndarray


@dataclass(frozen=True)
class LogLinear:
    """c + exp(k + t p): convex."""

    floor: float
    level: float
    slopes: Doubles
    convex: bool = True
    smooth: bool = True

    def predict(self, mixtures: Doubles) -> Doubles:
        return self.floor + np.exp(self.level + mixtures @ self.slopes)

    def gradient(self, mixtures: Doubles) -> Doubles:
        return np.exp(self.level + mixtures @ self.slopes)[:, None] * self.slopes


@dataclass(frozen=True)
class Wells:
    """The deeper of two bowls, smooth and not convex."""

    centres: Doubles
    depths: Doubles
    convex: bool = False
    smooth: bool = True

    def _bowls(self, mixtures: Doubles) -> Doubles:
        away = np.square(mixtures[:, None] - self.centres).sum(axis=2)
        return -self.depths * np.exp(-8 * away)

    def predict(self, mixtures: Doubles) -> Doubles:
        return self._bowls(mixtures).sum(axis=1)

    def gradient(self, mixtures: Doubles) -> Doubles:
        return (-16 * self._bowls(mixtures)[:, :, None] * (mixtures[:, None] - self.centres)).sum(axis=1)


@dataclass(frozen=True)
class Steps:
    """A law in steps, as trees are: no slopes."""

    law: LogLinear
    convex: bool = False
    smooth: bool = False

    def predict(self, mixtures: Doubles) -> Doubles:
        return np.round(self.law.predict(mixtures), 1)

    def gradient(self, mixtures: Doubles) -> Doubles:
        raise AssertionError("a law in steps has no slopes: the proposer must not ask for them")


def random_program(
    rng: np.random.Generator, size: int, strength: float, metrics: int = 3, ceilings: int = 0
) -> Program:
    laws = [LogLinear(rng.normal(), rng.normal(), 2 * rng.normal(size=size)) for _ in range(3)]
    prior = rng.dirichlet(np.ones(size))
    box = Box(np.zeros(size), np.minimum(1.0, prior * rng.uniform(1.1, 5, size) + 0.05))
    tops = [float(law.predict(prior[None])[0]) for law in laws]
    return program(
        [Metric(f"nll.{i}", law, 0.5, 0.7, 0.1, tops[i] if i < ceilings else None) for i, law in enumerate(laws)],
        box,
        prior,
        strength,
    )


def simplex_grid(steps: int) -> Doubles:
    """All (p1, p2, p3) in multiples of 1 / steps."""
    one, two = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1), indexing="ij")
    whole = np.stack([one, two, steps - one - two], axis=-1).reshape(-1, 3)
    return whole[whole[:, 2] >= 0] / steps


def best_of(program: Program, points: Doubles) -> Doubles:
    """The allowed point with the lowest value."""
    inside = ((points >= program.box.lower - 1e-12) & (points <= program.box.upper + 1e-12)).all(axis=1)
    points = points[inside & (program.excess(points).max(axis=1, initial=-np.inf) <= 1e-9)]
    return points[np.argmin(program.value(points))]
