"""The mixer as the engine meets it."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from pydantic import ValidationError

from schemas.errors import ContractError, CuveeError, RecipeError
from stages.kinds import kinds
from stages.mixer import Mixer, MixtureEvidence, SourceEvidence
from stages.mixture.fitted_shares import on_grid
from stages.mixture.limits import UNLIMITED
from stages.mixture.optimal_transport import OptimalTransport

WIDTH = 24
CENTRES = np.random.default_rng(11).normal(size=(4, WIDTH))
NAMES = ("art", "books", "cars", "dogs")


def vectors(source: int, rows: int, seed: int, width: int = WIDTH) -> np.ndarray:
    rng = np.random.default_rng((source, seed))
    drawn = CENTRES[source] + 1.2 * rng.normal(size=(rows, WIDTH))
    return (drawn[:, :width] / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def source(values: np.ndarray, name: str, weights=None) -> SourceEvidence:
    uids = [f"{name}-{i:05d}" for i in range(len(values))]
    return SourceEvidence({"image_embedding": values}, np.ones(len(values)) if weights is None else weights, uids)


def evidence(rows=(300, 300, 300, 300), target=((0, 200), (1, 200)), samples=600, seed=0) -> MixtureEvidence:
    sources = {NAMES[i]: source(vectors(i, count, 1), NAMES[i]) for i, count in enumerate(rows) if count}
    wanted = np.concatenate([vectors(i, count, 2) for i, count in target])
    natural = {name: len(found.uids) / sum(rows) for name, found in sources.items()}
    return MixtureEvidence(sources, {"image_embedding": wanted}, samples, natural, seed)


def mixer(**settings) -> OptimalTransport:
    return OptimalTransport(**{"bootstrap": 20, "atoms": 24, **settings})


def test_a_planted_half_and_half_comes_back():
    mixture = mixer().mix(evidence())
    assert mixture.weights["art"] == pytest.approx(0.5, abs=0.1)
    assert mixture.weights["books"] == pytest.approx(0.5, abs=0.1)
    assert mixture.capped == mixture.weights and mixture.binding == ()
    for name in ("art", "books"):
        low, high = mixture.intervals[name]
        assert low <= mixture.weights[name] <= high and 0 < high - low < 0.4
    assert mixture.references["ideal"] == mixture.objective
    assert mixture.objective < min(mixture.references["uniform"], mixture.references["natural"])
    assert all(mixture.objective < value for value in mixture.evidence["alone"].values())


def test_a_target_like_one_source_takes_that_source():
    mixture = mixer().mix(evidence(target=((2, 300),)))
    assert mixture.weights["cars"] > 0.9
    assert mixture.objective < 0.5 * mixture.references["natural"]


def test_answers_do_not_depend_on_the_order_of_the_sources():
    known = evidence()
    turned = replace(
        known,
        sources=dict(reversed(known.sources.items())),
        natural=dict(reversed(known.natural.items())),
    )
    assert asdict(mixer().mix(known)) == asdict(mixer().mix(turned))
    assert asdict(mixer().mix(known)) == asdict(mixer().mix(known))


def test_the_cap_binds_and_the_rest_goes_elsewhere():
    known = evidence(rows=(300, 40, 300, 300), samples=400)
    mixture = mixer(max_repeats=2).mix(known)
    assert mixture.weights["books"] > 0.3
    assert mixture.capped["books"] == pytest.approx(2 * 40 / 400, abs=2e-6)
    assert mixture.binding == ("max_repeats: books",)
    assert sum(mixture.capped.values()) == pytest.approx(1, abs=1e-12)
    assert mixture.references["ideal"] < mixture.objective < mixture.references["natural"]
    assert mixer(max_repeats=None).mix(known).capped == mixture.weights


def test_more_samples_than_rows_and_repeats_is_refused_with_both_numbers():
    with pytest.raises(CuveeError, match=r"4801 samples .* 1200 surviving rows drawn at most 4 times give 4800"):
        mixer(max_repeats=4).mix(evidence(samples=4801))
    full = mixer(max_repeats=4).mix(evidence(samples=4800))
    assert full.capped == pytest.approx(dict.fromkeys(NAMES, 0.25), abs=2e-6)


def test_row_weights_move_the_source_toward_what_weighs():
    mixed = np.concatenate([vectors(0, 150, 1), vectors(3, 150, 1)])
    known = evidence(rows=(0, 300, 300, 0), target=((0, 200),))
    heavy, light = np.r_[np.full(150, 50.0), np.ones(150)], np.r_[np.ones(150), np.full(150, 50.0)]
    shares, values = [], []
    for weights in (heavy, light):
        sources = {**known.sources, "mixed": source(mixed, "mixed", weights)}
        mixture = mixer().mix(replace(known, sources=sources, natural=dict.fromkeys(sources, 1 / 3)))
        shares.append(mixture.weights["mixed"])
        values.append(mixture.objective)
    assert shares[0] > 0.9 and shares[0] >= shares[1]
    assert values[0] < 0.6 * values[1]


def test_one_source_gets_everything():
    mixture = mixer().mix(evidence(rows=(300, 0, 0, 0)))
    assert mixture.weights == mixture.capped == {"art": 1.0} and mixture.intervals == {"art": (1.0, 1.0)}


def test_two_columns_are_joined():
    known = evidence()
    sources = {
        name: replace(found, columns={**found.columns, "text_embedding": found.columns["image_embedding"][:, :9]})
        for name, found in known.sources.items()
    }
    target = {**known.target, "text_embedding": known.target["image_embedding"][:, :9]}
    both = mixer(column=("image_embedding", "text_embedding"))
    assert both.columns() == ("image_embedding", "text_embedding")
    mixture = both.mix(replace(known, sources=sources, target=target))
    assert mixture.weights["art"] == pytest.approx(0.5, abs=0.1)
    assert mixture.objective != mixer().mix(known).objective


def test_evidence_is_plain_json():
    facts = mixer().mix(evidence())
    assert json.loads(json.dumps(asdict(facts)))["evidence"]["atoms"]["target"] == 24
    squared = facts.evidence["squared_distance"]["capped"]
    assert facts.objective == pytest.approx(squared / facts.evidence["median_cost"], rel=1e-4)
    assert set(facts.references) == {"ideal", "natural", "uniform"}


def test_the_engine_finds_it_and_its_promises():
    assert kinds(Mixer)["optimal_transport"] is OptimalTransport
    assert OptimalTransport().needs_target() and OptimalTransport().columns() == ("image_embedding",)
    assert OptimalTransport().repeats_allowed() == 4
    assert OptimalTransport(max_repeats=None).repeats_allowed() == UNLIMITED


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"column": "clip_score"}, "needs embeddings"),
        ({"column": ()}, "name an embedding column"),
        ({"column": ("image_embedding", "image_embedding")}, "several different ones"),
        ({"max_repeats": 0}, "greater than or equal to 1"),
        ({"bootstrap": 3}, "greater than or equal to 20"),
        ({"target": "pool"}, "'target'"),
        ({"repeats": 3}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        OptimalTransport(**settings)


def test_evidence_that_cannot_work_is_refused():
    known = evidence()
    with pytest.raises(CuveeError, match="the target has no row"):
        mixer().mix(replace(known, target={"image_embedding": np.zeros((0, WIDTH), np.float32)}))
    with pytest.raises(CuveeError, match="'art' has embeddings of width 24, the target of 8"):
        mixer().mix(replace(known, target={"image_embedding": vectors(0, 50, 2, width=8)}))
    with pytest.raises(CuveeError, match="no source"):
        mixer().mix(replace(known, sources={}))
    with pytest.raises(ContractError, match="natural share"):
        mixer().mix(replace(known, natural={"art": 1.0}))
    broken = known.target["image_embedding"].copy()
    broken[3] = 0
    with pytest.raises(ContractError, match="row 3 is all zeros"):
        mixer().mix(replace(known, target={"image_embedding": broken}))
    broken[3] = np.nan
    with pytest.raises(ContractError, match="finite vectors"):
        mixer().mix(replace(known, target={"image_embedding": broken}))


def test_the_grid_keeps_the_sum_and_breaks_ties_by_place():
    assert on_grid(np.full(3, 1 / 3)).tolist() == [0.333334, 0.333333, 0.333333]
    assert on_grid(np.array([1 - 3e-9, 3e-9])).tolist() == [1.0, 0.0]


def comparable(mixture) -> dict:
    facts = asdict(mixture)
    return {name: facts[name] for name in ("weights", "capped", "intervals", "objective", "references", "binding")}


def test_pinned_weights_are_taken_as_they_are(monkeypatch):
    known = evidence(rows=(300, 40, 300, 300), samples=400)
    fresh = mixer(max_repeats=2).mix(known)
    monkeypatch.setattr("stages.mixture.optimal_transport.mixer.intervals", None)
    monkeypatch.setattr("stages.mixture.optimal_transport.objective.minimise", None)
    again = mixer(max_repeats=2).mix(replace(known, fit=fresh.fit))
    assert asdict(again) == asdict(fresh) and again.notes == ()
    grown = mixer(max_repeats=2).mix(replace(evidence(target=((3, 200),)), fit=fresh.fit))
    assert (grown.weights, grown.capped, grown.intervals) == (fresh.weights, fresh.capped, fresh.intervals)
    assert grown.objective > fresh.objective  # that of the rows and the target there are now


def test_a_gone_source_leaves_its_share_to_the_others_and_a_new_one_is_refused():
    full, fewer = evidence(), evidence(rows=(300, 0, 300, 300))
    fresh = mixer().mix(full)
    left = mixer().mix(replace(fewer, fit=fresh.fit))
    assert set(left.weights) == {"art", "cars", "dogs"} and sum(left.capped.values()) == pytest.approx(1, abs=1e-12)
    rest = 1 - fresh.capped["books"]
    assert left.capped["art"] == pytest.approx(fresh.capped["art"] / rest, abs=2e-6)
    assert len(left.notes) == 1 and "'books' has no rows any more: its pinned share of 0." in left.notes[0]
    assert left.fit == fresh.fit and comparable(mixer().mix(replace(full, fit=left.fit))) == comparable(fresh)
    with pytest.raises(CuveeError, match=r"'books' has no pinned weight, only \['art', 'cars', 'dogs'\].*run once"):
        mixer().mix(replace(full, fit=mixer().mix(fewer).fit))
    alone = mixer().mix(evidence(rows=(300, 0, 300, 0), target=((0, 200),)))
    assert alone.fit is not None and alone.weights["cars"] == 0
    with pytest.raises(CuveeError, match=r"leave nothing to \['cars'\]"):
        mixer().mix(replace(evidence(rows=(0, 0, 300, 0)), fit=alone.fit))


def test_exponentiated_gradient_agrees_with_the_program_as_the_engine_meets_it():
    known = evidence(rows=(300, 40, 300, 300), samples=400)
    exact, descended = (mixer(max_repeats=2, solver=s).mix(known) for s in ("linear_program", "exponentiated_gradient"))
    assert descended.objective == pytest.approx(exact.objective, rel=1e-4)
    assert descended.references["ideal"] == pytest.approx(exact.references["ideal"], rel=1e-4)
    assert descended.references["natural"] == pytest.approx(exact.references["natural"], rel=1e-9)
    assert descended.binding == exact.binding == ("max_repeats: books",)
    assert descended.weights == pytest.approx(exact.weights, abs=0.05)
    for name in NAMES:
        assert descended.intervals[name] == pytest.approx(exact.intervals[name], abs=0.06)


def test_limits_bind_and_say_what_they_cost():
    mixture = mixer(min_share={"dogs": 0.1}, max_share={"art": 0.3}).mix(evidence())
    assert mixture.capped["dogs"] == pytest.approx(0.1, abs=2e-6)
    assert mixture.capped["art"] == pytest.approx(0.3, abs=2e-6)
    assert mixture.binding == ("min_share: dogs", "max_share: art")
    marginal = mixture.evidence["marginal"]
    assert marginal["art"] < marginal["books"] < marginal["dogs"] and marginal["art"] < 0 < marginal["dogs"]
    assert sum(marginal[name] * mixture.capped[name] for name in NAMES) == pytest.approx(0, abs=1e-6)
    assert mixture.references["ideal"] < mixture.objective


def test_limits_that_collide_are_refused_before_anything_is_computed():
    with pytest.raises(CuveeError, match=r"min_share of 'art' is 0.6, but max_share allows it 0.5"):
        mixer(min_share={"art": 0.6}, max_share=0.5).mix(evidence())
    with pytest.raises(RecipeError, match=r"mix: max_share names source 'arts'.*did you mean 'art'\?"):
        mixer(max_share={"arts": 0.6}).check(NAMES)
    mixer(max_share={"art": 0.6}).check(NAMES)


def test_a_prior_draws_the_shares_to_it():
    known = evidence(rows=(300, 300, 300, 600))
    free, drawn, held = (mixer(prior_strength=s).mix(known) for s in (0.0, 0.3, 1e4))
    assert drawn.weights["dogs"] > free.weights["dogs"] + 0.02
    assert held.weights == pytest.approx(known.natural, abs=1e-3)
    assert drawn.evidence["distance"]["ideal"] >= free.references["ideal"] - 1e-5
    assert drawn.objective >= drawn.evidence["distance"]["capped"]
    even = mixer(prior_strength=1e4, prior="uniform").mix(known)
    assert even.weights == pytest.approx(dict.fromkeys(NAMES, 0.25), abs=1e-3)


def test_the_sinkhorn_divergence_finds_the_planted_half_and_half():
    mixture = mixer(divergence="sinkhorn", atoms=8, ranking=False).mix(evidence())
    assert mixture.weights["art"] == pytest.approx(0.5, abs=0.12)
    assert mixture.objective < min(mixture.references["uniform"], mixture.references["natural"])
    low, high = mixture.intervals["art"]
    assert low < 0.5 < high


def labelled_evidence() -> MixtureEvidence:
    """Two sources with the same embeddings; in one of them the labels say nothing about these."""
    values, wanted = (np.concatenate([vectors(0, 100, s), vectors(1, 100, s)]) for s in (1, 2))
    right, wrong = np.repeat(["cat", "dog"], 100), np.tile(["cat", "dog"], 100)
    sources = {}
    for name, labels in (("fits", right), ("jumbled", wrong)):
        found = source(values, name)
        sources[name] = replace(found, columns={**found.columns, "breed": labels})
    return MixtureEvidence(
        sources, {"image_embedding": wanted, "breed": right}, 200, {"fits": 0.5, "jumbled": 0.5}, seed=0
    )


def test_labels_part_what_embeddings_cannot():
    known = labelled_evidence()
    blind = mixer(atoms=8).mix(known)
    assert blind.weights["fits"] == pytest.approx(0.5, abs=0.01)
    seeing = mixer(atoms=8, cost="clusters", label="breed")
    assert seeing.columns() == ("image_embedding", "breed")
    assert seeing.mix(known).weights["fits"] == pytest.approx(1, abs=1e-6)


def test_clusters_without_labels_keep_the_planted_answer():
    mixture = mixer(cost="clusters", clusters=4).mix(evidence())
    assert mixture.weights["art"] == pytest.approx(0.5, abs=0.12)
    assert mixture.weights["books"] == pytest.approx(0.5, abs=0.12)


def test_the_tables_say_what_a_source_is_worth():
    tables = mixer().mix(evidence()).evidence["ranking"]
    assert set(tables["order"][:2]) == {"art", "books"}
    lost = tables["leave_one_out"]
    assert min(lost["art"], lost["books"]) > 10 * max(lost["cars"], lost["dogs"])
    assert tables["pairs"]["art"]["books"] < tables["pairs"]["art"]["cars"] <= 0
    assert mixer(ranking=False).mix(evidence()).evidence["ranking"] is None


def test_a_source_in_two_parts_gets_together_what_it_gets_whole():
    settled = []
    for atoms in (40, 160):  # one partition of 300 rows, and four
        apart = []
        for seed in range(6):
            whole = evidence(rows=(300, 300, 0, 0), seed=seed)
            art = whole.sources["art"]
            order = np.random.default_rng(seed).permutation(300)
            parts = {
                f"art_{i}": source(art.columns["image_embedding"][np.sort(part)], f"art_{i}")
                for i, part in enumerate(np.split(order, [180]), start=1)
            }
            cut = replace(
                whole,
                sources={**parts, "books": whole.sources["books"]},
                natural={"art_1": 0.3, "art_2": 0.2, "books": 0.5},
            )
            shares = mixer(atoms=atoms, ranking=False)
            apart.append(abs(shares.mix(whole).weights["books"] - shares.mix(cut).weights["books"]))
        settled.append(float(np.mean(apart)))
    assert settled[1] < 0.6 * settled[0] and settled[1] < 0.03, settled


def test_a_redundant_twin_is_not_missed():
    known = evidence(rows=(300, 300, 0, 0))
    twin = source(vectors(0, 300, 3), "twin")
    sources = {**known.sources, "twin": twin}
    mixture = mixer().mix(replace(known, sources=sources, natural=dict.fromkeys(sources, 1 / 3)))
    alone = mixer().mix(known)
    lost = mixture.evidence["ranking"]["leave_one_out"]
    assert max(lost["art"], lost["twin"]) < 0.2 * lost["books"]
    total = mixture.weights["art"] + mixture.weights["twin"]
    assert total == pytest.approx(alone.weights["art"], abs=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"solver": "linear_program", "divergence": "sinkhorn"},
            "no linear program; leave `solver` at auto",
        ),
        ({"solver": "linear_program", "prior_strength": 0.1}, "no linear program; leave `solver` at auto"),
        ({"label": "breed"}, "read by cost: clusters only"),
    ],
)
def test_options_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        OptimalTransport(**settings)


def test_a_source_without_embeddings_is_named():
    known = evidence()
    empty = replace(known.sources["cars"], columns={"image_embedding": np.zeros((0, WIDTH), np.float32)}, uids=[])
    with pytest.raises(CuveeError, match=r"source 'cars' has no row with an embedding.*leave the source out"):
        mixer(max_repeats=None).mix(replace(known, sources={**known.sources, "cars": empty}))
