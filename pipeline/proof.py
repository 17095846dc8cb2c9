"""The proof of gain: the same connector trained on several sets of data, told apart only by the data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline.cluster import Cluster
from pipeline.export import Draws
from pipeline.fingerprints import fingerprint, rounded
from pipeline.places import rooted
from pipeline.replay import replayed
from pipeline.resolve import Resolved, nearest, validated
from pipeline.score import Progress
from pipeline.select import Selected
from pipeline.shards import read_images
from pipeline.sidecars import read_json, read_table, write_json
from pipeline.train import Arm, compare
from pipeline.training.cards import write_cards
from pipeline.training.feeding import feed
from schemas.errors import RecipeError
from schemas.recipe import TRAIN_SPLIT, Export
from schemas.tables import POOL_ROLE
from stages.file_identity import file_identity
from stages.noise import uniform_noise
from stages.train.settings import TrainSettings

ARM = Export(samples_per_shard=1000)
"""How an arm would be written; its keys and its order follow from it."""


SEEDS = 3
"""Fewer give no interval worth the name."""


@dataclass(frozen=True)
class Evidence:
    """What the proof is made from: a finished selection and its export."""

    chosen: Selected
    export_folder: Path
    manifest: dict[str, Any]

    @property
    def resolved(self) -> Resolved:
        """The recipe in hand."""
        return self.chosen.table.resolved

    @property
    def trained_on(self) -> pl.DataFrame:
        """(uid, repeats) of the exported samples that the connector is trained on, in uid order."""
        shards = [shard["url"] for shard in self.manifest["shards"] if shard["split"] in ("", TRAIN_SPLIT)]
        shards += ["", f"{TRAIN_SPLIT}/"]  # what a list without shards has in their place
        members = pl.read_parquet(self.export_folder / MEMBERS_FILE, columns=["uid", "exported_shard"])
        counts = members.filter(pl.col("exported_shard").is_in(shards)).group_by("uid").len("repeats")
        return counts.with_columns(pl.col("repeats").cast(pl.Int32)).sort("uid")


@dataclass(frozen=True)
class Written:
    """An arm that lies in tars already."""

    address: str
    tars: tuple[str, ...]
    members: Path
    """Its members.parquet."""
    samples: int
    """In those tars, repeats counted."""


CURATED = "curated"
"""The arm that a schedule steers."""
MEMBERS_FILE = "members.parquet"


def settings(resolved: Resolved) -> TrainSettings:
    """The recipe's `train` section with its vision tower filled in.

    Raises:
        RecipeError: a key or value that does not fit, or a score step without an image tower.
    """
    train = resolved.recipe.train
    assert train is not None
    stage = next(stage for stage in resolved.stages if stage.name == train.vision)
    if not hasattr(stage, "model"):
        towers = [stage.name for stage in resolved.stages if hasattr(stage, "model")]
        raise RecipeError(f"`train.vision` names {train.vision!r}, which has no model{nearest(train.vision, towers)}")
    vision = {"vision_model": stage.model, "vision_pretrained": getattr(stage, "pretrained", None)}
    given = rooted(TrainSettings, train.settings(), resolved.folder)
    if isinstance(given.get("replay"), dict):
        given["replay"] = replayed(given["replay"], resolved.folder)
    if isinstance(given.get("text_only"), dict):
        given["text_only"] = replayed(given["text_only"], resolved.folder, "train.text_only")
    made: TrainSettings = validated(TrainSettings, {**given, **vision}, "train")
    made.check()
    return made


def refuse_few_seeds(given: TrainSettings, what: str) -> None:
    """Refuse a comparison whose intervals would say nothing.

    Raises:
        RecipeError: with the number found and the number expected.
    """
    if given.seeds < SEEDS:
        raise RecipeError(
            f"`train.seeds` is {given.seeds}; a comparison of {what} needs {SEEDS} or more for its intervals"
        )


def prove(evidence: Evidence, cluster: Cluster, progress: Progress = lambda *_: None) -> tuple[dict[str, Any], bool]:
    """Train every arm and compare; returns the result and whether it was there already.

    raw: the decodable pool in natural shares. random: as many of its samples as the curated set has distinct ones.
    curated: the export, of a split one the part `train`. What lies in no tars is read from the pool's shards. Samples
    that match the held-out images are in no arm.
    """
    chosen = evidence.chosen
    pool = _usable(chosen)
    curated = evidence.trained_on
    tars = _tars(evidence.export_folder, evidence.manifest)
    arms: dict[str, Draws | Written] = {
        "raw": _draws(chosen, pool, len(pool), "raw"),
        "random": _draws(chosen, pool, len(curated), "random"),
        CURATED: arm(chosen, curated, CURATED),
    }
    if tars:
        count = int(curated["repeats"].sum())
        members = evidence.export_folder / MEMBERS_FILE
        arms[CURATED] = Written(evidence.manifest["address"], tars, members, count)
    return train_arms(chosen, arms, cluster, progress)


def train_arms(
    chosen: Selected,
    arms: Mapping[str, "Draws | Written"],
    cluster: Cluster,
    progress: Progress = lambda *_: None,
    against: str | None = None,
) -> tuple[dict[str, Any], bool]:
    """Train every arm, compare on the held-out pairs; and whether that was there already.

    What is no tar is read from the pool's shards.

    Args:
        chosen: where the held-out pairs are.
        arms: by name; the last one is held against each of the others, unless `against` names an arm.
        cluster: where to train.
        progress: called after each job.
        against: the arm that each of the others is held against.
    """
    resolved = chosen.table.resolved
    chosen_settings, seed = settings(resolved).sized(list(arms.values())[-1].samples), resolved.recipe.seed
    if CURATED not in arms:
        chosen_settings = chosen_settings.model_copy(update={"schedule": None})
    addresses = {name: data.address for name, data in arms.items()}
    held = chosen.held["uid"].sort().to_list()
    aimed = chosen_settings.schedule is not None and resolved.recipe.target is not None
    aim = [chosen.target["uid"].sort().to_list()] if aimed else []
    beside = [asked.shards for asked in (chosen_settings.replay, chosen_settings.text_only) if asked]
    old = [[file_identity(Path(tar)) for tar in shards] for shards in beside]
    facts = [addresses, chosen_settings.identity(), held, seed, *([against] if against else []), *aim, *old]
    folder = resolved.workspace.fit(f"train-{fingerprint(facts)}")
    result = folder / "result.json"
    if not (reused := result.exists()):
        found = compare(
            chosen_settings,
            [_fed(name, data, resolved, chosen_settings.columns) for name, data in arms.items()],
            held_out_pairs(chosen),
            folder,
            seed=seed,
            cluster=cluster,
            against=against,
            features=resolved.workspace.fit("visual-tokens"),
            target=pairs_of(chosen, chosen.target) if aimed else None,
            progress=progress,
        )
        write_json(rounded(found), result)
        write_cards(folder, chosen_settings, addresses, found)
    return read_json(result), reused


def _fed(name: str, data: "Draws | Written", resolved: Resolved, columns: Sequence[str]) -> Arm:
    is_curated = name == CURATED
    if isinstance(data, Written):
        return Arm(name, data.tars, str(data.members) if is_curated else None, listed=str(data.members))
    pairs = feed(data, resolved.workspace.arm(f"{name}-{data.address}"), columns)
    return Arm(name, members=pairs.listed if is_curated else None, pairs=pairs, listed=pairs.listed)


def _usable(chosen: Selected) -> pl.DataFrame:
    """(uid) of the pool rows that decode and match no held-out image."""
    pool = chosen.table.samples.filter(pl.col("role") == POOL_ROLE).select("uid")
    sound = pool.join(chosen.quarantined, on="uid", how="anti")
    matches = [step.verdict.dropped for step in chosen.decisions if step.kind == "holdout"]
    return sound.join(matches[0], on="uid", how="anti") if matches else sound


def _draws(chosen: Selected, pool: pl.DataFrame, count: int, purpose: str) -> Draws:
    noise = uniform_noise(pool["uid"].to_list(), chosen.table.resolved.recipe.seed, f"arm {purpose}")
    first = pool.with_columns(pl.Series("noise", noise)).sort("noise", "uid").head(count).sort("uid")
    return arm(chosen, first.select("uid", pl.lit(1, pl.Int32).alias("repeats")), purpose)


def arm(chosen: Selected, repeats: pl.DataFrame, name: str) -> Draws:
    """An arm of these samples (uid, repeats)."""
    return Draws(chosen.table, repeats, ARM, {"arm": name})


def _tars(folder: Path, manifest: dict[str, Any]) -> tuple[str, ...]:
    """The shards to train on; none where the format has no tars."""
    shards = [shard for shard in manifest["shards"] if shard["split"] in ("", TRAIN_SPLIT)]
    return tuple(str(folder / shard["url"]) for shard in shards if shard["url"].endswith(".tar"))


def held_out_pairs(chosen: Selected) -> pa.Table:
    """(key, image, caption, source) of the held-out samples, in uid order; the uid is the key."""
    return pairs_of(chosen, chosen.held)


def pairs_of(chosen: Selected, uids: pl.DataFrame) -> pa.Table:
    """(key, image, caption, source) of some samples (uid), in uid order; the uid is the key."""
    rows = sorted(_pairs(chosen, chosen.table.samples.join(uids, on="uid", how="semi")))
    keys, images, captions, sources = zip(*rows, strict=True) if rows else ((), (), (), ())
    image = pa.array(images, pa.large_binary())
    return pa.table({"key": keys, "image": image, "caption": captions, "source": sources})


def _pairs(chosen: Selected, held: pl.DataFrame) -> Iterator[tuple[str, bytes, str, str]]:
    table = chosen.table
    for (shard_path, role), part in held.partition_by("shard", "role", as_dict=True).items():
        shard = next(s for s in table.shards if (s.input.container.path, s.input.role) == (shard_path, role))
        part = part.sort("row")
        path = table.resolved.workspace.sidecar(shard.input.index_address, str(shard.digest))
        lines = read_table(path).take(pa.array(part["row"].to_numpy()))
        images = read_images(shard.input.container, lines).to_pylist()
        captions = lines["caption"].to_pylist()
        for uid, image, caption, source in zip(part["uid"], images, captions, part["source"], strict=True):
            if image is not None and caption:
                yield uid, image, caption, source
