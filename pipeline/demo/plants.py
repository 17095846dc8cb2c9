"""Who carries which defect: the plan of the demo's pool, drawn before a pixel is."""

from dataclasses import dataclass

import numpy as np

from pipeline.demo.scenes import pick, randomness

NONE, MISMATCHED, BOILERPLATE, EXACT, NEAR, CORRUPT, OFF_DOMAIN = (
    "none",
    "mismatched",
    "boilerplate",
    "exact_duplicate",
    "near_duplicate",
    "corrupt",
    "off_domain",
)
PLANTS = {MISMATCHED: 0.20, BOILERPLATE: 0.10, EXACT: 0.10, NEAR: 0.05, CORRUPT: 0.02}
"""Shares of the whole pool; a sample carries at most one plant."""
OFF_DOMAIN_SHARE = 0.20


@dataclass(frozen=True)
class Origin:
    """A source: how its images look (`screen`: patterns only), how captions read, what it shows, how dirty it is."""

    name: str
    style: str
    phrasing: str
    suffix: str
    share: float
    """Of the pool."""
    dirt: float
    """Relative number of plants per sample."""
    favoured: tuple[str, ...] = ()
    """Shapes it shows most."""


SCENE_ORIGINS = (
    Origin("studio", "studio", "plain", "png", 0.20, 0.4, ("circle", "ring", "heart")),
    Origin("notebook", "notebook", "notes", "webp", 0.24, 0.9, ("square", "triangle", "diamond")),
    Origin("street", "street", "alt_text", "jpg", 0.36, 1.3, ("star", "cross", "crescent")),
)
SCREENS = Origin("screens", "screen", "title", "jpg", OFF_DOMAIN_SHARE, 0.0)
CLEAN_SCREENS = Origin("screens", "studio", "plain", "jpg", OFF_DOMAIN_SHARE, 0.0)
"""What stands in for the off-domain source when nothing is planted."""


@dataclass(frozen=True)
class Row:
    """One sample to be: its place in its source, what is planted in it, and what it is a copy of."""

    origin: Origin
    number: int
    plant: str = NONE
    original: "Row | None" = None


def plan(pairs: int, seed: int, plants: bool) -> dict[str, list[Row]]:
    """Every sample of the pool, by source, in the order of the shards."""
    last = SCREENS if plants else CLEAN_SCREENS
    sizes = [round(origin.share * pairs) for origin in (*SCENE_ORIGINS, last)]
    if not plants:
        return {o.name: [Row(o, n) for n in range(size)] for o, size in zip((*SCENE_ORIGINS, last), sizes, strict=True)}
    rng = randomness(seed, "plan", 0)
    counts = {plant: _spread(round(share * pairs), sizes[:-1]) for plant, share in PLANTS.items()}
    rows = {}
    for place, origin in enumerate(SCENE_ORIGINS):
        kinds = [plant for plant, found in counts.items() for _ in range(found[place])]
        kinds += [NONE] * (sizes[place] - len(kinds))
        order = rng.permutation(sizes[place]).tolist()
        rows[origin.name] = [Row(origin, number, kinds[k]) for number, k in enumerate(order)]
    screens = [Row(SCREENS, number, OFF_DOMAIN) for number in range(sizes[-1])]
    return {**_with_originals(rows, rng), SCREENS.name: screens}


def _spread(count: int, sizes: list[int]) -> list[int]:
    """`count` plants over the scene sources by size x dirt, by largest remainder."""
    weights = np.array([size * origin.dirt for size, origin in zip(sizes, SCENE_ORIGINS, strict=True)])
    ideal = count * weights / weights.sum()
    whole = np.floor(ideal).astype(int)
    whole[np.argsort(whole - ideal, kind="stable")[: count - whole.sum()]] += 1
    return [int(number) for number in whole]


def _with_originals(rows: dict[str, list[Row]], rng: np.random.Generator) -> dict[str, list[Row]]:
    """Name what each copy is made from: exact copies share originals, also across sources; near copies never do."""
    clean = {name: [row for row in part if row.plant == NONE] for name, part in rows.items()}
    copied = {name: part[: len(part) // 3] for name, part in clean.items()}
    everywhere = [row for part in copied.values() for row in part]
    edited = {name: part[len(part) // 3 :][::-1] for name, part in clean.items()}

    def filled(row: Row) -> Row:
        if row.plant == EXACT:
            choice = copied[row.origin.name] if rng.random() < 0.7 else everywhere
            return Row(row.origin, row.number, EXACT, pick(rng, choice))
        if row.plant == NEAR:
            return Row(row.origin, row.number, NEAR, edited[row.origin.name].pop())
        return row

    return {name: [filled(row) for row in part] for name, part in rows.items()}
