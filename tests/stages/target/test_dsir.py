import json
import pickle
import re
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from ray import cloudpickle

from schemas.errors import CuveeError
from stages import ngrams
from stages.budget import Budget
from stages.measures.divergence import kl_divergence
from stages.ngrams import bucket, hash_ngrams
from stages.noise import gumbel_noise
from stages.rule import DROPPED_SCHEMA, Context, Verdict, in_order
from stages.target.dsir import Dsir
from stages.target.dsir.draw import one_ranking, rows_per_target
from stages.target.dsir.weights import folded, log_ratio, log_weights, scores

REFERENCE = json.loads((Path(__file__).parent / "dsir_reference.json").read_text())
CHARACTERS = st.characters(exclude_categories=["Cs"])  # a lone surrogate is no UTF-8, so no caption holds one
TRICKY = st.sampled_from("abc .,'_9\n\t\x00\x1c\x7f\x85\u3000\u0301\u200dΣςİßA")
TEXTS = st.lists(st.text(TRICKY | CHARACTERS, max_size=30))
WORDS = st.lists(st.lists(st.sampled_from(["red", "dog", "runs", ",", "the"]), max_size=6).map(" ".join), max_size=20)


def plain_ngrams(text: str, longest: int) -> list[list[str]]:
    """The published features: wordpunct tokens of the lower-cased text, all runs of 1 to `longest` of them."""
    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    return [[" ".join(words[at : at + i]) for at in range(len(words) - i + 1)] for i in range(1, longest + 1)]


def test_anchors_of_the_published_hash() -> None:
    assert bucket("alice", 10_000) == 6720
    assert bucket("alice went", 10_000) == 114
    found = hash_ngrams(["Alice went to the store"])
    assert found.counts().tolist() == [9]
    assert found.histogram()[[6720, 114]].tolist() == [1, 1]


@given(TEXTS, st.integers(1, 4))
def test_sha256_buckets_are_those_of_each_ngram(texts: list[str], longest: int) -> None:
    found = hash_ngrams(texts, longest, 997)
    for i in range(1, longest + 1):
        expected = [bucket(ngram, 997) for text in texts for ngram in plain_ngrams(text, longest)[i - 1]]
        assert found.buckets[i - 1].tolist() == expected
    assert found.tokens.tolist() == [len(plain_ngrams(text, 1)[0]) for text in texts]
    assert found.counts().sum() == sum(len(buckets) for buckets in found.buckets)


@given(WORDS, st.integers(1, 4))
def test_xxh3_buckets_tell_the_same_ngrams_apart(texts: list[str], longest: int) -> None:
    found = hash_ngrams(texts, longest, 2**24, "xxh3")
    for i in range(1, longest + 1):
        spelled = [ngram for text in texts for ngram in plain_ngrams(text, longest)[i - 1]]
        pairs = set(zip(spelled, found.buckets[i - 1].tolist(), strict=True))
        assert len(pairs) == len(set(spelled)) == len({number for _, number in pairs})


@pytest.mark.parametrize("hashing", ["sha256", "xxh3"])
def test_blocks_change_nothing(hashing: ngrams.Hashing, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = REFERENCE["pool"]
    whole = hash_ngrams(texts, 3, hashing=hashing)
    monkeypatch.setattr(ngrams, "BLOCK_BYTES", 100)
    cut = hash_ngrams(texts, 3, hashing=hashing)
    assert cut.tokens.tolist() == whole.tokens.tolist()
    assert all((a == b).all() for a, b in zip(cut.buckets, whole.buckets, strict=True))


@given(TEXTS, st.integers(1, 3), st.data())
def test_sums_and_histograms_equal_a_dense_count(texts: list[str], longest: int, data: st.DataObject) -> None:
    found = hash_ngrams(texts, longest, 31)
    dense = np.zeros((len(texts), 31), np.int64)
    for row, text in enumerate(texts):
        for ngram in chain.from_iterable(plain_ngrams(text, longest)):
            dense[row, bucket(ngram, 31)] += 1
    values = np.linspace(-1, 1, 31)
    assert found.sums(values) == pytest.approx(dense @ values)
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))), bool)
    assert found.histogram(chosen).tolist() == dense[chosen].sum(axis=0).tolist()
    assert found.only(chosen).histogram().tolist() == dense[chosen].sum(axis=0).tolist()
    assert found.histogram().tolist() == dense.sum(axis=0).tolist()


def test_exact_weights_equal_the_published_package() -> None:
    pool, target = hash_ngrams(REFERENCE["pool"]), hash_ngrams(REFERENCE["target"])
    found = log_weights(pool, target.histogram(), "exact")
    assert np.abs(found.log - REFERENCE["log_weights"]).max() <= 1e-9
    assert found.length.tolist() == REFERENCE["lengths"]


def taken(score: np.ndarray, samples: int) -> list[int]:
    ranked = pl.DataFrame({"uid": [f"{place:04d}" for place in range(len(score))], "score": score})
    return np.flatnonzero(Budget(samples=samples).take(ranked, 0, "dsir")).tolist()


def test_the_draw_equals_the_published_package_under_the_same_noise() -> None:
    pool, target = hash_ngrams(REFERENCE["pool"]), hash_ngrams(REFERENCE["target"])
    weights = log_weights(pool, target.histogram(), "exact")
    places = np.flatnonzero(weights.length >= REFERENCE["min_length"])
    noise = np.array(REFERENCE["noise"])[: len(places)]
    chosen = places[taken(scores(weights.log[places], None) + noise, REFERENCE["samples"])]
    assert chosen.tolist() == REFERENCE["selected"]


def noise_by_target(several: dict, eligible: np.ndarray, counts: list[int]) -> dict[str, np.ndarray]:
    """Over all eligible rows; the package gives a target's noise to those that earlier targets left."""
    left, found = np.ones(len(eligible), bool), {}
    for number, (name, count) in enumerate(zip(several["targets"], counts, strict=True)):
        noise = np.zeros(len(eligible))
        noise[left] = several["noise"][number][: left.sum()]
        score = np.array(several["log_weights"])[eligible, number] + noise
        left[np.argsort(np.where(left, -score, np.inf), kind="stable")[:count]] = False
        found[f"dsir {name}"] = noise
    return found


@pytest.mark.parametrize("number", [0, 1])
def test_several_targets_draw_as_in_the_published_package(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    several, pool = REFERENCE["several"], table(REFERENCE["pool"])
    expected, names = several["draws"][number], list(several["targets"])
    wanted = dict(zip(names, expected["given"], strict=True)) if expected["given"] else names
    counts = rows_per_target(several["samples"], expected["proportions"])
    noise = noise_by_target(several, np.flatnonzero(np.array(REFERENCE["lengths"]) >= 5), counts)
    monkeypatch.setattr("stages.target.dsir.rule.gumbel_noise", lambda uids, seed, purpose: noise[purpose])
    rule = Dsir(samples=several["samples"], mode="exact", min_length=5, targets=wanted)
    assert not rule.needs_target() and rule.needs_references() == tuple(names)
    sets = {name: table(texts).lazy() for name, texts in several["targets"].items()}
    verdict = rule.judge(pool.lazy(), Context(0, references=sets))
    assert [int(uid) for uid in kept(verdict, pool)] == expected["selected"]
    shares = [verdict.evidence["targets"][name]["share"] for name in names]
    assert shares == pytest.approx(expected["proportions"], rel=1e-12)
    weights = log_weights(hash_ngrams(REFERENCE["pool"]), hash_ngrams(several["targets"]["shop"]).histogram(), "exact")
    assert np.abs(weights.log - np.array(several["log_weights"])[:, 1]).max() <= 1e-9


def test_rounding_is_left_to_the_last_target() -> None:
    assert rows_per_target(10, [0.35, 0.35, 0.3]) == [3, 3, 4]
    assert rows_per_target(1, [0.9, 0.1]) == [0, 1]
    assert rows_per_target(100, [0.29, 0.71]) == [28, 72]  # 100 * 0.29 is a little below 29, there and here
    assert rows_per_target(0, [0.5, 0.5]) == [0, 0]


@given(st.lists(st.lists(st.integers(-2, 2).map(float), min_size=8, max_size=8), min_size=1, max_size=3), st.data())
def test_one_ranking_holds_the_draws_of_all_targets(each: list[list[float]], data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 8 // len(each)), min_size=len(each), max_size=len(each)))
    uids, left = pl.Series([f"{place:04d}" for place in range(8)]), list(range(8))
    for score, count in zip(each, counts, strict=True):
        ranked = pl.DataFrame({"uid": uids.gather(left), "score": [score[place] for place in left]})
        drawn = (
            Budget.model_validate({"samples": count}).take(ranked, 3, "dsir") if count else np.zeros(len(left), bool)
        )
        left = [place for place, gone in zip(left, drawn, strict=True) if not gone]
    noise = [np.random.default_rng(number).integers(-2, 3, 8).astype(float) for number in range(len(each))]
    weights = [np.array(score) - own for score, own in zip(each, noise, strict=True)]
    found, importance = one_ranking(uids, weights, noise, counts, 3)
    ranked = pl.DataFrame({"uid": uids, "score": found})
    if sum(counts):
        assert all(any(np.round(gap, 9) == own[at] for own in noise) for at, gap in enumerate(found - importance))
        chosen = Budget(samples=sum(counts)).take(ranked, 3, "dsir")
        assert np.flatnonzero(~chosen).tolist() == left


def test_a_text_s_weight_does_not_depend_on_its_neighbours() -> None:
    pool, target = hash_ngrams(REFERENCE["pool"]), hash_ngrams(REFERENCE["target"])
    ratio = log_ratio(target.histogram(), pool.histogram(), "caption")
    alone = [float(hash_ngrams([text]).sums(ratio)[0]) for text in REFERENCE["pool"]]
    assert pool.sums(ratio).tolist() == alone


def test_exact_smoothing_adds_to_the_target_s_counts_only() -> None:
    target, pool = np.array([3, 1, 0, 0]), np.array([0, 2, 2, 4])
    expected = np.log(np.array([3.5, 1.5, 0.5, 0.5]) / 6 + 1e-8) - np.log(pool / 8 + 1e-8)
    assert log_ratio(target, pool, "exact", 0.5) == pytest.approx(expected)


def test_caption_smoothing_mixes_the_pool_into_the_target() -> None:
    target, pool = np.array([3, 1, 0, 0]), np.array([0, 2, 2, 4])
    found = log_ratio(target, pool, "caption", 1)
    expected = np.log(np.array([0.375, 0.25, 0.125, 0.25]) + 1e-8) - np.log(pool / 8 + 1e-8)
    assert found == pytest.approx(expected)
    assert found[2:] == pytest.approx(np.log(0.5))  # what the target lacks costs log 2, however common it is
    assert log_ratio(target, target * 5, "caption") == pytest.approx(0)


def test_caption_scores_have_a_fixed_spread_in_any_order() -> None:
    noise = np.random.default_rng(0).normal(size=1000) * 1e-3 + 5
    found = scores(noise, 2)
    assert np.std(found) == pytest.approx(2)
    order = np.random.default_rng(1).permutation(1000)
    assert (scores(noise[order], 2) == found[order]).all()
    assert scores(np.full(3, 0.25), 2).tolist() == [0, 0, 0]
    assert len(scores(np.zeros(0), 2)) == 0


def test_weights_that_differ_by_rounding_are_equal() -> None:
    log = np.random.default_rng(0).normal(scale=1e-16, size=100)
    assert not scores(log, 4.0).any() and scores(log * 1e9, 4.0).std() == pytest.approx(4.0)


def test_resampling_follows_the_weights() -> None:
    # Gumbel top-1 draws with probability softmax(log weight).
    weights = np.log(np.array([0.5, 0.3, 0.2]))
    noisy = (weights + gumbel_noise([f"{seed}a", f"{seed}b", f"{seed}c"], seed, "dsir") for seed in range(4000))
    draws = [int(score.argmax()) for score in noisy]
    assert np.bincount(draws) / 4000 == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_divergences_are_measured_in_few_buckets() -> None:
    counts = np.arange(25_000)
    assert folded(counts)[:5].tolist() == [30_000, 30_003, 30_006, 30_009, 30_012]
    assert folded(counts)[5_000:5_002].tolist() == [20_000, 20_002] and folded(counts).sum() == counts.sum()
    assert folded(counts[:7]).tolist() == list(range(7))


def test_divergence() -> None:
    p, q = np.array([8, 2, 0]), np.array([2, 8, 0])
    smooth_p, smooth_q = (p + 0.1) / 10.3, (q + 0.1) / 10.3
    assert kl_divergence(p, q) == pytest.approx(float(np.sum(smooth_p * np.log(smooth_p / smooth_q))))
    assert kl_divergence(p, p) == 0


def table(captions: list[str | None], start: int = 0) -> pl.DataFrame:
    uids = [f"{number + start:04d}" for number in range(len(captions))]
    return pl.DataFrame({"uid": uids, "source": "s", "caption": captions}, schema_overrides={"caption": pl.String})


def judge(rule: Dsir, pool: pl.DataFrame, target: pl.DataFrame | None, seed: int = 0) -> Verdict:
    verdict = rule.judge(pool.lazy(), Context(seed, None if target is None else target.lazy()))
    assert dict(verdict.dropped.schema) == DROPPED_SCHEMA
    return verdict


def kept(verdict: Verdict, pool: pl.DataFrame) -> list[str]:
    return pool.join(verdict.dropped, on="uid", how="anti")["uid"].to_list()


PHOTOS = [f"a {a} {b} on the {c}" for a in ("red", "small", "happy") for b in ("dog", "cat", "bird") for c in "xyz"]
SHOP = [
    f"new {a} sale {b} 2021 {c}" for a in ("shirt", "shoe", "hat") for b in ("cotton", "wool", "silk") for c in "lms"
]


@pytest.mark.parametrize(("mode", "settings"), [("caption", {}), ("exact", {"min_length": 1})])
def test_it_prefers_captions_like_the_target_s(mode: str, settings: dict[str, int]) -> None:
    pool = table([*SHOP, *PHOTOS])
    rule = Dsir(samples=20, mode=mode, **settings)
    verdict = judge(rule, pool, table(["a small dog on the beach", "the happy cat", "a bird on the x"] * 4, 9000))
    found = kept(verdict, pool)
    assert len(found) == 20
    assert sum(int(uid) >= len(SHOP) for uid in found) >= 18


@pytest.mark.parametrize("targets", [{}, {"targets": {"photos": 0.3, "shop": 0.7}}])
def test_importance_is_the_score_without_its_noise(targets: dict[str, dict[str, float]]) -> None:
    pool = table([*SHOP, *SHOP, *PHOTOS])
    verdicts = [
        Dsir(samples=20, **targets).judge(pool.lazy(), Context(n, TWO["photos"], references=TWO)) for n in (0, 1)
    ]
    found = verdicts[0].scores
    assert found is not None and found.columns == ["uid", "score", "importance"]
    noises = [gumbel_noise(found["uid"].to_list(), 0, f"dsir {name}".strip()) for name in targets.get("targets", [""])]
    gaps = (found["score"] - found["importance"]).to_numpy()
    assert np.isclose(gaps, noises, atol=1e-12).any(axis=0).all()
    if not targets:  # equal captions weigh the same, whatever the seed
        assert verdicts[1].scores["importance"].equals(found["importance"])
        assert found["importance"][: len(SHOP)].equals(found["importance"][len(SHOP) : 2 * len(SHOP)])


def test_evidence_tells_whether_the_target_came_nearer() -> None:
    pool, target = table([*SHOP, *PHOTOS] * 20), table([*PHOTOS] * 20, 9000)
    evidence = judge(Dsir(samples=300), pool, target).evidence
    found = evidence["targets"]["target"]
    for part in (found["kl"], found["kl_held_out"]):
        assert part["selected"] < part["random"] / 2
        assert part["selected"] < part["pool"] / 2
    assert evidence["words"] == {"pool": 6, "selected": 6} and found["words"] == 6 and found["share"] == 1
    assert judge(Dsir(samples=5), pool, table(["a dog"])).evidence["targets"]["target"]["kl_held_out"] is None


def test_every_row_has_its_reason() -> None:
    pool = table(["a dog", None, "", "  \n", "cat", "a b c d", "x y z"])
    verdict = judge(Dsir(samples=1, min_length=2), pool, table(["a dog"]))
    reasons = dict(verdict.dropped.select("uid", "reason").iter_rows())
    assert {uid for uid, reason in reasons.items() if reason == "caption_missing"} == {"0001", "0002", "0003"}
    assert {uid for uid, reason in reasons.items() if reason == "below_min_length"} == {"0004"}
    assert sum(reason == "not_sampled_by_dsir" for reason in reasons.values()) == 2
    assert verdict.evidence["budget"] == {"samples": 1, "eligible": 3, "kept": 1}


def test_exact_mode_drops_captions_by_default() -> None:
    with pytest.raises(CuveeError, match="asked for 1 samples, and there are 0 eligible"):
        judge(Dsir(samples=1, mode="exact"), table(PHOTOS), table(PHOTOS))


def test_order_of_rows_changes_nothing_and_the_seed_does() -> None:
    pool, target = table([*SHOP, *PHOTOS]), table(PHOTOS, 9000)
    rule = Dsir(samples=10)
    first = judge(rule, pool, target)
    for shuffle in range(3):
        again = judge(rule, pool.sample(fraction=1, shuffle=True, seed=shuffle), target.reverse())
        assert again.dropped.equals(first.dropped)
        assert again.evidence == first.evidence
    seeds = {tuple(kept(judge(rule, pool, target, seed), pool)) for seed in range(5)}
    assert len(seeds) == 5


def test_all_rows_can_be_asked_for_but_no_more() -> None:
    pool, target = table([*PHOTOS, None]), table(PHOTOS)
    assert len(kept(judge(Dsir(samples=len(PHOTOS)), pool, target), pool)) == len(PHOTOS)
    with pytest.raises(
        CuveeError, match="for 28 samples, and there are 27 eligible rows, 1 not eligible: 1 as caption"
    ):
        judge(Dsir(samples=28), pool, target)
    with pytest.raises(CuveeError, match="0 eligible rows, 0 not eligible; nothing would be kept"):
        judge(Dsir(samples=1), table([]), target)
    with pytest.raises(CuveeError, match="0 eligible rows, 2 not eligible: 2 as caption_missing; nothing"):
        judge(Dsir(samples=1), table([None, " "]), target)


@pytest.mark.parametrize("captions", [[], [None, None], ["", " "]])
def test_a_target_without_captions_is_refused(captions: list[str | None]) -> None:
    with pytest.raises(CuveeError, match=f"none of the {len(captions)} samples of target 'target' has a caption"):
        judge(Dsir(samples=1), table(PHOTOS), table(captions))
    with pytest.raises(CuveeError, match="needs the target 'target' and got none"):
        judge(Dsir(samples=1), table(PHOTOS), None)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"samples": 0},
        {"samples": 1, "fraction": 0.5},
        {"samples": 1, "mode": "fast"},
        {"samples": 1, "smoothing": -1},
        {"samples": 1, "mode": "exact", "sharpness": 2},
        {"samples": 1, "targets": []},
        {"samples": 1, "targets": ["a", "a"]},
        {"samples": 1, "targets": {"a": 0.5, "b": 0.6}},
        {"samples": 1, "targets": {"a": 1, "b": None}},
        {"samples": 1, "targets": {"a": 0, "b": 1}},
        {"samples": 1, "target": "target", "targets": ["a", "b"]},
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Dsir.model_validate(settings)


def test_reference_covers_what_can_differ() -> None:
    texts = REFERENCE["pool"]
    assert "" in texts and any("Σ" in text for text in texts) and any(len(text.split()) >= 40 for text in texts)
    assert all(a != b for a, b in pairwise(sorted(REFERENCE["log_weights"])[:20])) and len(REFERENCE["selected"]) == 15


@pytest.mark.parametrize(("mode", "settings"), [("caption", {}), ("exact", {"min_length": 1})])
def test_a_pinned_ratio_decides_as_it_did_and_fits_nothing(
    mode: str, settings: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, target = table([*SHOP, *PHOTOS, "", "dog"]), table(PHOTOS[:9], 9000)
    rule = Dsir(samples=20, mode=mode, **settings)
    fresh = judge(rule, pool, target)
    for name in ("rule.log_ratio", "draw.spread"):
        monkeypatch.setattr(f"stages.target.dsir.{name}", None)
    other = table(SHOP[:3], 9500)  # a target that changed has no say
    again = rule.judge(pool.lazy(), Context(0, other.lazy(), fresh.fit))
    assert again.dropped.equals(fresh.dropped) and again.fit == fresh.fit
    assert again.evidence["targets"]["target"]["kl_held_out"] is None
    assert again.evidence["budget"] == fresh.evidence["budget"] and again.scores.equals(fresh.scores)
    more = pl.concat([pool, table(["a small dog on the y", "cotton shirt"] * 20, 5000)])
    grown = rule.judge(more.lazy(), Context(0, target.lazy(), fresh.fit))
    old = pool.join(grown.dropped, on="uid", how="anti")["uid"]
    assert len(kept(grown, more)) == 20 and set(old) < set(kept(fresh, pool))


EXACT = {"mode": "exact", "min_length": 1}
TWO = {"photos": table(PHOTOS, 7000).lazy(), "shop": table(SHOP[::2], 8000).lazy()}


def uid_parts(pool: pl.DataFrame, number: int, order: int) -> tuple[pl.LazyFrame, ...]:
    owner = np.random.default_rng(order).integers(0, number, len(pool))
    parts = [pool.filter(pl.Series(owner == part)).sort("uid").lazy() for part in range(number)]
    return tuple(parts[place] for place in np.random.default_rng(order + 1).permutation(number))


def far_away(function, pieces):
    """As on a cluster: what is to be done travels as bytes, and so does what comes back."""
    return [pickle.loads(pickle.dumps(pickle.loads(cloudpickle.dumps(function))(piece))) for piece in pieces]


@pytest.mark.parametrize("budget", [{"samples": 30}, {"fraction": 0.4}, {"tokens": 150}])
@pytest.mark.parametrize(
    "settings", [{}, {"mode": "exact", "min_length": 1}, {"targets": {"photos": 0.3, "shop": 0.7}}]
)
def test_parts_change_nothing(settings: dict, budget: dict) -> None:
    pool = table([*SHOP, None, "", *PHOTOS, "dog", "a dog, a cat"])
    rule = Dsir(**settings, **budget)
    whole = rule.judge(pool.lazy(), Context(4, TWO["photos"], references=TWO))
    for number in (1, 2, 7):
        for order in (0, 10):
            parts = uid_parts(pool, number, order)
            found = rule.judge(
                pool.lazy(), Context(4, TWO["photos"], None, TWO, parts, far_away if order else in_order)
            )
            assert found.dropped.equals(whole.dropped) and found.scores.equals(whole.scores)
            assert found.evidence == whole.evidence and found.fit == whole.fit


def test_shares_are_drawn_and_each_target_has_its_evidence() -> None:
    pool, rule = table([*SHOP, *PHOTOS] * 20), Dsir(samples=300, targets={"photos": 0.7, "shop": 0.3})
    verdict = rule.judge(pool.lazy(), Context(0, references=TWO))
    photos = sum(int(uid) % (len(SHOP) + len(PHOTOS)) >= len(SHOP) for uid in kept(verdict, pool))
    assert 180 <= photos <= 240  # 210, but for what the noise draws from the other side
    for name in TWO:
        found = verdict.evidence["targets"][name]
        assert found["kl"]["selected"] < found["kl"]["random"] * 1.2 and found["kl_held_out"] is not None
    other = Dsir(samples=300, targets={"shop": 0.3, "photos": 0.7})
    assert other.model_dump(mode="json") != rule.model_dump(mode="json")  # it matters who draws first


def test_pinned_targets_are_told_apart_by_name() -> None:
    pool, rule = table([*SHOP, *PHOTOS] * 20), Dsir(samples=300, targets=["photos", "shop"])
    fresh = rule.judge(pool.lazy(), Context(0, references=TWO))
    swapped = {"photos": TWO["shop"], "shop": TWO["photos"]}
    pinned = rule.judge(pool.lazy(), Context(0, references=swapped, fit=fresh.fit))
    assert pinned.fit == fresh.fit and pinned.scores.equals(fresh.scores) and pinned.dropped.equals(fresh.dropped)


def test_a_budget_of_tokens_ends_where_the_next_caption_would_not_fit() -> None:
    pool = table([*SHOP, *PHOTOS])
    verdict = judge(Dsir(tokens=100), pool, table(PHOTOS, 9000))
    lengths = pool.select("uid", pl.col("caption").str.split(" ").list.len()).join(verdict.scores, on="uid")
    ranked = lengths.sort("score", descending=True)
    expected = ranked.filter(pl.col("caption").cum_sum() <= 100)["uid"].sort().to_list()
    assert kept(verdict, pool) == expected and verdict.evidence["budget"]["tokens"] == 100
    with pytest.raises(CuveeError, match=r"asked for 1000 tokens, and there are \d+ tokens in 54 eligible rows"):
        judge(Dsir(tokens=1000), pool, table(PHOTOS, 9000))
