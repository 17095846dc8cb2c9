"""Scores from embeddings against people, and as detectors of shuffled captions.

People: Kendall's tau-b with the mean of three experts, and the AUC of pairs that at least two of three experts call
fitting (3 or 4) over pairs that all three call unrelated (1); also of scores that see one side only. Mismatch: the AUC
of true over shuffled pairs where half of each source's captions change places, over the whole pool and per source, mean
and spread of several seeds. Then how batches are drawn, which kinds of text are visual, and what scoring costs.

    python -m bench.judgements --shared SHARED --cache SCRATCH
"""

import argparse
import csv
import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.columns import CAPTION, CLIP_SCORE, CONTENT_HASH, IMAGE, IMAGE_EMBEDDING, TEXT_EMBEDDING
from schemas.tables import POOL_ROLE, TARGET_ROLE
from stages.alignment.alignment_level import AlignmentLevel
from stages.alignment.calibrated_clip_score import CalibratedClipScore
from stages.alignment.clip.stage import Clip
from stages.alignment.negcliploss import NegCLIPLoss
from stages.alignment.tmars import Tmars
from stages.alignment.visualness import Visualness
from stages.fitted_stage import Examples, FittedStage
from stages.quality.caption_rules import CaptionRules
from stages.quality.caption_text import CaptionText
from stages.quality.image_detectors import ImageDetectors
from stages.quality.image_header import ImageHeader
from stages.stage import Stage
from stages.target.normsim import NormSim
from stages.vectors import row_dots, vectors

Scores = npt.NDArray[np.float64]
SEEDS = 5


def samples(folder: Path) -> Iterator[tuple[bytes, str]]:
    """(image, caption) of every sample of the tars of a folder, in order."""
    for shard in sorted(folder.glob("*.tar")):
        members: dict[str, dict[str, bytes]] = {}
        with tarfile.open(shard) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                if stream is not None:
                    stem, _, suffix = member.name.partition(".")
                    members.setdefault(stem, {})[suffix] = stream.read()
        for parts in members.values():
            yield parts.get("jpg") or parts["png"], parts["txt"].decode()


def embedded(stage: Clip, pairs: list[tuple[bytes | None, str | None]]) -> tuple[pa.Array, pa.Array]:
    """Image and text embeddings of pairs."""
    scorer, found = stage.open(), []
    for start in range(0, len(pairs), stage.batch_rows):
        images, texts = zip(*pairs[start : start + stage.batch_rows], strict=True)
        columns = [pa.array(images, IMAGE.type), pa.array(texts, CAPTION.type)]
        found.append(scorer(pa.record_batch(columns, pa.schema(stage.reads))))
    table = pa.Table.from_batches(found)
    return table[IMAGE_EMBEDDING.name].combine_chunks(), table[TEXT_EMBEDDING.name].combine_chunks()


def frame(images: pa.Array, texts: pa.Array, source: str, first: int) -> pl.DataFrame:
    """Rows as stages learn and score them."""
    numbers = range(first, first + len(images))
    cosine = row_dots(vectors(images), vectors(texts))
    columns = {
        "uid": [f"{number * 2654435761 % 2**64:032x}" for number in numbers],
        "source": [source] * len(images),
        CONTENT_HASH.name: [f"{number:032x}"[::-1] for number in numbers],
        IMAGE_EMBEDDING.name: images,
        TEXT_EMBEDDING.name: texts,
        CLIP_SCORE.name: pa.array(cosine, CLIP_SCORE.type),
    }
    found = pl.from_arrow(pa.table(columns))
    assert isinstance(found, pl.DataFrame)
    return found


def scores(stage: FittedStage, rows: pl.DataFrame, examples: Examples, column: str) -> Scores:
    """A stage's column for rows of one source or of many."""
    fit = stage.learn(examples)
    found = np.zeros(len(rows))
    sources = rows["source"].unique() if stage.per_source else [""]
    for source in sources:
        chosen = (rows["source"] == source).to_numpy() if source else np.ones(len(rows), bool)
        part = rows.filter(pl.Series(chosen))
        arrays = [part[field.name].to_arrow().cast(field.type) for field in stage.reads]
        batch = pa.record_batch(arrays, pa.schema(stage.reads))
        found[chosen] = stage.open_with(fit, source)(batch)[column].to_numpy(zero_copy_only=False)
    return found


def auc(good: Scores, bad: Scores) -> float:
    """Probability that a good one scores above a bad one, ties as half."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([good, bad]))[: len(good)]
    return float((ranks.sum() - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def methods(scale: float) -> dict[str, tuple[FittedStage, str]]:
    """Name -> stage and column."""
    return {
        "negcliploss, T 0.01": (NegCLIPLoss(), "negcliploss"),
        "negcliploss, T 0.07": (NegCLIPLoss(temperature=0.07), "negcliploss"),
        f"negcliploss, T 1/{scale:.1f} (the model's)": (NegCLIPLoss(temperature=1 / scale), "negcliploss"),
        "negcliploss, T 0.01, B 1024": (NegCLIPLoss(batch=1024), "negcliploss"),
        "calibrated_clip_score": (CalibratedClipScore(), "calibrated_clip_score"),
        "alignment_level": (AlignmentLevel(), "alignment_level"),
        "normsim_2": (NormSim(), "normsim_2"),
        "normsim_inf": (NormSim(), "normsim_inf"),
        "visualness": (Visualness(), "visualness"),
    }


class Data:
    """The embeddings of pool, target and judged photos."""

    def __init__(self, shared: Path, model: Path, cache: Path) -> None:
        self.shared, self.cache = shared, cache
        self.stage = Clip(model=str(model), device="cpu")
        cache.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in (shared / "data/pool").iterdir() if path.is_dir())
        parts = [
            self.kept(name, shared / "data/pool" / name, 10**6 * (1 + number)) for number, name in enumerate(names)
        ]
        self.pool = pl.concat(parts).sort("uid")
        self.target = self.kept("target", shared / "data/target/photos", 10**8).sort("uid")
        self.writers: dict[str, Stage] = {TEXT_EMBEDDING.name: self.stage}

    def kept(self, name: str, folder: Path, first: int) -> pl.DataFrame:
        """The rows of one source."""
        path = self.cache / f"{name}.parquet"
        if not path.exists():
            began = time.perf_counter()
            frame(*embedded(self.stage, list(samples(folder))), name, first).write_parquet(path)
            print(f"embedded {name} in {time.perf_counter() - began:.0f} s", flush=True)
        return pl.read_parquet(path)

    def judged(self) -> tuple[pl.DataFrame, npt.NDArray[np.int64]]:
        """The judged pairs whose caption is not the image's own, and the experts' scores (n, 3)."""
        table = self.shared / "data/judgements/flickr8k_expert_300.csv"
        with table.open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["caption_of_key"] != row["key"]]
        path = self.cache / "judged.parquet"
        if not path.exists():
            photos = self.photos()
            keys = sorted({row["key"] for row in rows})
            images, _ = embedded(self.stage, [(photos[key], None) for key in keys])
            _, texts = embedded(self.stage, [(None, row["caption"]) for row in rows])
            places = {key: place for place, key in enumerate(keys)}
            of_row = images.take(pa.array([places[row["key"]] for row in rows]))
            frame(of_row, texts, "photos", 10**9).write_parquet(path)
        experts = np.array([[int(row[f"expert_{number}"]) for number in (1, 2, 3)] for row in rows])
        return pl.read_parquet(path), experts

    def photos(self) -> dict[str, bytes]:
        """Judged photos by key."""
        found = {}
        for shard in sorted((self.shared / "data/judgements/photos").glob("*.tar")):
            with tarfile.open(shard) as archive:
                for member in archive:
                    stream = archive.extractfile(member)
                    if member.name.endswith(".jpg") and stream is not None:
                        found[Path(member.name).stem] = stream.read()
        return found

    def examples(self, pool: pl.DataFrame) -> Examples:
        """What stages learn from."""
        return Examples({POOL_ROLE: pool, TARGET_ROLE: self.target}, 0, self.writers)

    @property
    def scale(self) -> float:
        """The model's own logit scale."""
        return float(self.stage.load().network.logit_scale.exp())


def against_people(data: Data) -> dict[str, tuple[float, float]]:
    """Per score, tau-b with the experts' mean and AUC of fitting over unrelated pairs; fits are of the real pool."""
    from scipy.stats import kendalltau

    rows, experts = data.judged()
    mean = experts.mean(axis=1)
    fitting, unrelated = (experts >= 3).sum(axis=1) >= 2, (experts == 1).all(axis=1)
    found = {"clip_score": rows[CLIP_SCORE.name].to_numpy().astype(np.float64)}
    examples = data.examples(data.pool)
    for name, (stage, column) in methods(data.scale).items():
        found[name] = scores(stage, rows, examples, column)
    print(f"{len(rows)} judged pairs, {fitting.sum()} fitting, {unrelated.sum()} unrelated")
    return {
        name: (float(kendalltau(values, mean, variant="b").statistic), auc(values[fitting], values[unrelated]))
        for name, values in found.items()
    }


def others(data: Data) -> dict[str, tuple[float, float]]:
    """Against people, every number of the other stages that bring no model, and of tmars with the same one."""
    from scipy.stats import kendalltau

    rows, experts = data.judged()
    mean = experts.mean(axis=1)
    fitting, unrelated = (experts >= 3).sum(axis=1) >= 2, (experts == 1).all(axis=1)
    with (data.shared / "data/judgements/flickr8k_expert_300.csv").open(newline="") as stream:
        judged = [row for row in csv.DictReader(stream) if row["caption_of_key"] != row["key"]]
    photos = data.photos()
    columns = {
        IMAGE.name: pa.array([photos[row["key"]] for row in judged], IMAGE.type),
        CAPTION.name: pa.array([row["caption"] for row in judged], CAPTION.type),
        TEXT_EMBEDDING.name: rows[TEXT_EMBEDDING.name].to_arrow().cast(TEXT_EMBEDDING.type),
        CLIP_SCORE.name: rows[CLIP_SCORE.name].to_arrow().cast(CLIP_SCORE.type),
    }
    found = {}
    for stage in (
        ImageHeader(),
        ImageDetectors(),
        CaptionText(),
        CaptionRules.model_validate({}),
        Tmars(model=data.stage.model),
    ):
        batch = pa.record_batch([columns[field.name] for field in stage.reads], pa.schema(stage.reads))
        written = stage.open()(batch)
        for field in stage.writes:
            if not pa.types.is_floating(field.type) and not pa.types.is_integer(field.type):
                continue
            values = written[field.name].to_numpy(zero_copy_only=False).astype(np.float64)
            if len(np.unique(values)) > 1:
                tau = float(kendalltau(values, mean, variant="b").statistic)
                found[field.name] = (tau, auc(values[fitting], values[unrelated]))
    return found


def shuffled(pool: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, npt.NDArray[np.bool_]]:
    """The pool with the captions of half of each source's pairs moved on by one, and which pairs are true."""
    rng = np.random.default_rng(seed)
    order, true = np.arange(len(pool)), np.ones(len(pool), bool)
    for source in pool["source"].unique().sort():
        places = rng.permutation(np.flatnonzero((pool["source"] == source).to_numpy()))
        half = places[: len(places) // 2]
        order[half], true[half] = np.roll(half, 1), False
    texts = pool[TEXT_EMBEDDING.name].to_arrow().take(pa.array(order))
    images = pool[IMAGE_EMBEDDING.name].to_arrow()
    cosine = row_dots(vectors(images), vectors(texts)).astype(np.float32)
    rows = pool.with_columns(pl.Series(TEXT_EMBEDDING.name, texts), pl.Series(CLIP_SCORE.name, cosine))
    return rows, true


def mismatches(data: Data, seeds: int = SEEDS) -> dict[str, dict[str, list[float]]]:
    """Per score, `all` or source -> AUC of true over shuffled pairs, one per seed; fits are of the shuffled pool."""
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        rows, true = shuffled(data.pool, seed)
        values = {"clip_score": rows[CLIP_SCORE.name].to_numpy().astype(np.float64)}
        for name, (stage, column) in methods(data.scale).items():
            if column.startswith(("neg", "cal")):
                values[name] = scores(stage, rows, data.examples(rows), column)
        for source in ("all", *rows["source"].unique().sort()):
            chosen = (rows["source"] == source).to_numpy() | (source == "all")
            for name, numbers in values.items():
                one = auc(numbers[chosen & true], numbers[chosen & ~true])
                found.setdefault(name, {}).setdefault(source, []).append(one)
    return found


def one_threshold(data: Data, passing: float = 0.05) -> dict[str, dict[str, float]]:
    """Share of each source's shuffled pairs above the threshold that lets 5 % of all shuffled pairs pass."""
    rows, true = shuffled(data.pool, 0)
    values = {"clip_score": rows[CLIP_SCORE.name].to_numpy().astype(np.float64)}
    for stage, column in ((NegCLIPLoss(), "negcliploss"), (CalibratedClipScore(), "calibrated_clip_score")):
        values[column] = scores(stage, rows, data.examples(rows), column)
    found: dict[str, dict[str, float]] = {}
    for name, numbers in values.items():
        threshold = np.quantile(numbers[~true], 1 - passing)
        for source in rows["source"].unique().sort():
            chosen = (rows["source"] == source).to_numpy() & ~true
            found.setdefault(name, {})[source] = float((numbers[chosen] > threshold).mean())
    return found


def batchings(data: Data, size: int = 1024, repeats: int = 10) -> dict[str, float]:
    """Correlations on the real pool of our batches with the authors' partitions, and of these with each other."""
    images, texts = (vectors(data.pool[name].to_arrow()) for name in (IMAGE_EMBEDDING.name, TEXT_EMBEDDING.name))
    f, g = images.astype(np.float64), texts.astype(np.float64)
    count = len(f) // size * size

    def partitioned(seed: int) -> Scores:
        rng, total, times = np.random.default_rng(seed), np.zeros(len(f)), np.zeros(len(f))
        for _ in range(repeats):
            for part in rng.permutation(len(f))[:count].reshape(-1, size):
                block = np.exp((f[part] @ g[part].T - 1) / 0.01)
                total[part] += np.log(block.sum(axis=0)) + np.log(block.sum(axis=1))
                times[part] += 1
        found: Scores = row_dots(images, texts) - 1 - 0.01 / 2 * total / times
        return found

    stage = NegCLIPLoss(batch=size, batches=repeats)
    ours = scores(stage, data.pool, data.examples(data.pool), "negcliploss")
    one, other = partitioned(0), partitioned(1)
    whole = scores(NegCLIPLoss(), data.pool, data.examples(data.pool), "negcliploss")
    return {
        "ours, authors'": float(np.corrcoef(ours, one)[0, 1]),
        "authors', authors' with another seed": float(np.corrcoef(one, other)[0, 1]),
        "ours, the whole pool as one batch": float(np.corrcoef(ours, whole)[0, 1]),
        "authors', the whole pool as one batch": float(np.corrcoef(one, whole)[0, 1]),
        "whole pool, clip_score": float(np.corrcoef(whole, data.pool[CLIP_SCORE.name])[0, 1]),
    }


def texts_of(shared: Path) -> dict[str, list[str]]:
    """Kinds of text, 1,000 each, from what can be seen to what cannot."""
    documents = (shared / "data/text/dsir_toy_pile.jsonl").read_text().splitlines()
    sentences = [json.loads(line)["contents"].strip().split(". ")[0][:300] for line in documents]
    web = pl.read_parquet(shared / "data/text/web_alt_text_10k.parquet")["TEXT"].drop_nulls().to_list()
    return {"web alt-texts": web[:1000], "first sentences of documents": [s for s in sentences if s][:1000]}


def seen_or_not(data: Data) -> dict[str, tuple[float, float]]:
    """Visualness of kinds of text: mean, and AUC of the photos' captions over this kind."""
    stage = Visualness()
    fit = stage.learn(data.examples(data.pool))
    rows = {str(name[0]): part for name, part in sorted(data.pool.partition_by("source", as_dict=True).items())}
    columns = {f"captions of {name}": part[TEXT_EMBEDDING.name].to_arrow() for name, part in rows.items()}
    for name, texts in texts_of(data.shared).items():
        columns[name] = embedded(data.stage, [(None, text) for text in texts])[1].drop_null()
    scorer = stage.open_with(fit, "")
    values = {
        name: scorer(pa.record_batch([column.cast(TEXT_EMBEDDING.type)], pa.schema(stage.reads)))[
            "visualness"
        ].to_numpy()
        for name, column in columns.items()
    }
    photos = values["captions of photos"]
    return {name: (float(found.mean()), auc(photos, found)) for name, found in values.items()}


def costs(data: Data) -> dict[str, float]:
    """Seconds a 1,000 samples of scoring on this machine, BLAS as it is set; learning left out."""
    found: dict[str, Any] = {}
    for name, (stage, _) in methods(data.scale).items():
        fit = stage.learn(data.examples(data.pool))
        scorer = stage.open_with(fit, "")
        part = data.pool.head(1000)
        arrays = [part[field.name].to_arrow().cast(field.type) for field in stage.reads]
        batch = pa.record_batch(arrays, pa.schema(stage.reads))
        began = time.process_time()
        scorer(batch)
        found[name] = time.process_time() - began
    return found


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/ and models/")
    parser.add_argument("--model", type=Path, help="default: DIR/models/tiny-dual-encoder")
    parser.add_argument("--cache", type=Path, required=True, help="scratch folder for embeddings")
    options = parser.parse_args()
    data = Data(options.shared, options.model or options.shared / "models/tiny-dual-encoder", options.cache)
    for name, (tau, area) in against_people(data).items():
        print(f"people    {name:42} tau-b {tau:+.3f}  AUC {area:.3f}")
    for name, (tau, area) in others(data).items():
        print(f"others    {name:42} tau-b {tau:+.3f}  AUC {area:.3f}")
    for name, by_source in mismatches(data).items():
        cells = "  ".join(f"{source} {np.mean(v):.4f} ({np.std(v):.4f})" for source, v in by_source.items())
        print(f"mismatch  {name:42} {cells}")
    for name, shares in one_threshold(data).items():
        cells = "  ".join(f"{source} {share:.3f}" for source, share in shares.items())
        print(f"passing   {name:42} {cells}")
    for name, value in batchings(data).items():
        print(f"batches   {name:42} correlation {value:.4f}")
    for name, (mean, area) in seen_or_not(data).items():
        print(f"visible   {name:42} mean {mean:.4f}  AUC of photo captions over it {area:.3f}")
    for name, seconds in costs(data).items():
        print(f"cost      {name:42} {seconds:.3f} s per 1,000")


if __name__ == "__main__":
    main()
