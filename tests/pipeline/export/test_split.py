"""Splits: repeats, twins and near copies of one image stay together, whatever their keys; shares as asked."""

import io
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from pipeline.cluster import Cluster
from pipeline.export.draws import Draws
from pipeline.export.plan import ordered
from pipeline.export.split import assigned
from pipeline.resolve import resolve
from pipeline.run import run
from pipeline.sidecars import read_json
from schemas.columns import PHASH
from schemas.errors import CuveeError, RecipeError
from schemas.recipe import Export
from schemas.tables import POOL_ROLE
from tests.pools import picture, sample, write_tar

PICTURES = 60
SHARES = {"train": 0.6, "holdout": 0.3, "test": 0.1}


def recompressed(image: bytes) -> bytes:
    """A copy that is no twin."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(image)).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def pool(home: Path, prefix: str = "") -> Path:
    """Every picture three times: in alpha, under another key and caption in beta, and recompressed in gamma."""
    kinds = {"alpha": picture, "beta": picture, "gamma": lambda number: recompressed(picture(number))}
    for source, draw in kinds.items():
        made = [sample(number, f"{source} says {number}") | {"jpg": draw(number)} for number in range(PICTURES)]
        named = [one | {"__key__": f"{prefix}{source}{one['__key__'].decode()}".encode()} for one in made]
        write_tar(home / source / "00000.tar", named)
    recipe = home / "recipe.yaml"
    lines = "".join(f'  - {{source: {source}, shards: "{source}/*.tar"}}\n' for source in kinds)
    scores = "score: [{kind: perceptual_hash}]\n"
    recipe.write_text(f"name: split\nworkspace: ./work\nseed: 1\npool:\n{lines}{scores}export: {{samples: 150}}\n")
    return recipe


def drawn(recipe: Path, split: dict[str, float] | None = SHARES, repeats: int = 1) -> Draws:
    with Cluster(workers=2) as cluster:
        table = run(resolve(recipe), cluster, until="select").chosen.table
    every = table.samples.select("uid", pl.lit(repeats, pl.Int32).alias("repeats"))
    return Draws(table, every, Export(split=split), {})


def placed(draws: Draws) -> pl.DataFrame:
    samples = draws.table.samples.sort("uid")
    return samples.with_columns(assigned(draws, samples))


@pytest.fixture(scope="module")
def draws(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> Draws:
    return drawn(pool(tmp_path_factory.mktemp("split")))


def test_twins_and_near_copies_stay_together(draws: Draws) -> None:
    found = placed(draws).with_columns(pl.col("key").str.extract(r"s(\d+)$").alias("picture"))
    hashes = draws.table.scores(POOL_ROLE, [PHASH.name]).select("uid", PHASH.name).collect()
    by_picture = found.join(hashes, on="uid").sort("picture").partition_by("picture")
    assert len(by_picture) == PICTURES
    near = [part for part in by_picture if span(part) <= 4]
    assert len(near) > PICTURES * 0.8, "the recompressed copies are no near copies"
    assert all(part["split"].n_unique() == 1 for part in near)
    twins = found.group_by("image_hash").agg(pl.col("split").n_unique(), pl.len())
    assert (twins["split"] == 1).all() and (twins["len"] == 2).sum() == PICTURES


def span(part: pl.DataFrame) -> int:
    """Bits between the hashes of a picture and of its copy."""
    hashes = part[PHASH.name].to_list()
    return max((one ^ other).bit_count() for one in hashes for other in hashes)


def test_repeats_stay_together_and_every_part_has_its_shards(draws: Draws) -> None:
    three = draws.repeats.with_columns(pl.lit(3, pl.Int32).alias("repeats"))
    plan = ordered(
        Draws(draws.table, three, Export(split=SHARES, samples_per_shard=50), {}), "{folder}{number:05d}.tar"
    )
    assert len(plan) == 9 * PICTURES
    assert plan.group_by("uid").agg(pl.col("split").n_unique())["split"].max() == 1
    assert (plan["exported_shard"].str.split("/").list.first() == plan["split"]).all()
    assert plan.group_by("exported_shard").len()["len"].max() == 50
    assert plan["exported_shard"].is_sorted()


def test_shares_are_about_what_was_asked(draws: Draws) -> None:
    counts = dict(placed(draws).group_by("split").len().iter_rows())
    total = sum(counts.values())
    assert all(abs(counts[name] / total - share) < 0.2 for name, share in SHARES.items()), counts


def test_the_order_of_the_shares_and_the_keys_of_the_pool_change_nothing(draws: Draws, tmp_path: Path) -> None:
    turned = Draws(draws.table, draws.repeats, Export(split=dict(reversed(SHARES.items()))), {})
    assert turned.address == draws.address
    assert placed(turned).equals(placed(draws))
    other = drawn(pool(tmp_path, prefix="renamed-"))
    by_image = [placed(one).select("image_hash", "split").unique().sort("image_hash") for one in (draws, other)]
    assert by_image[0].equals(by_image[1])


def test_another_seed_is_another_split(draws: Draws, tmp_path: Path) -> None:
    recipe = pool(tmp_path)
    recipe.write_text(recipe.read_text().replace("seed: 1", "seed: 2"))
    both = placed(drawn(recipe)).join(placed(draws), on="uid")
    assert (both["split"] != both["split_right"]).any()


@pytest.mark.parametrize("split", [None, {"train": 1.0}])
def test_one_part_is_no_split(draws: Draws, split: dict[str, float] | None) -> None:
    assert set(placed(Draws(draws.table, draws.repeats, Export(split=split), {}))["split"]) == {""}


def test_a_part_without_a_sample_is_refused_by_name(draws: Draws) -> None:
    shares = {"train": 1 - 1e-6, "tiny": 1e-6}
    with pytest.raises(CuveeError, match=r"split 'tiny' \(share 1e-06\) gets none of 180 samples"):
        placed(Draws(draws.table, draws.repeats, Export(split=shares), {}))


REFUSALS = {
    "shares": ("{split: {train: 0.9, holdout: 0.2}}", "add up to 1.1"),
    "a name that readers reserve": ("{split: {train: 0.5, all: 0.5}}", "cannot be called 'all'"),
    "a name that is no folder": ("{split: {train: 0.5, '../x': 0.5}}", "split.../x"),
    "no share": ("{split: {train: 1, holdout: 0}}", "greater than 0"),
    "an unknown kind": ("{kind: tfrecord}", "'webdataset', 'parquet', 'mds', 'energon' or 'huggingface'"),
    "a column that is taken": ("{columns: [caption]}", "which every row has already"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused(make_pool: Callable[..., Path], case: str) -> None:
    export, message = REFUSALS[case]
    with pytest.raises(RecipeError) as refusal:
        resolve(make_pool(extra=f"export: {export}\n"))
    assert message in str(refusal.value)


def test_training_needs_a_part_called_train(make_pool: Callable[..., Path]) -> None:
    extra = "export: {split: {learn: 0.9, holdout: 0.1}}\ntrain: {vision: image_header}\n"
    with pytest.raises(RecipeError, match=r"needs a split called 'train', found .*holdout.*learn"):
        resolve(make_pool(extra=extra))


def test_manifest_and_card_name_the_realised_counts(exported: Callable[..., Path]) -> None:
    folder = exported("webdataset", True)
    manifest = read_json(folder / "manifest.json")
    members = pl.read_parquet(folder / "members.parquet")
    for name, facts in manifest["splits"].items():
        there = members.filter(pl.col("exported_shard").str.starts_with(f"{name}/"))
        assert (facts["samples"], facts["distinct_samples"]) == (len(there), there["uid"].n_unique())
        assert f"| {name} | {facts['samples']} |" in (folder / "README.md").read_text()
    assert sum(facts["samples"] for facts in manifest["splits"].values()) == manifest["samples"] == 70
