import numpy as np
import pytest
from datasketch import MinHash as Theirs
from hypothesis import given
from hypothesis import strategies as st

from stages.near_texts import signatures as module
from stages.near_texts.shingles import Cut
from stages.near_texts.signatures import LARGEST, Scheme, sha1_shingles, signatures

TEXTS = st.lists(st.text(max_size=40), max_size=6)


def theirs(texts: list[str], cut: Cut, number: int, scheme: Scheme) -> np.ndarray:
    found = []
    for text in texts:
        minhash = Theirs(number, scheme=scheme)
        minhash.update_batch([ngram.encode() for ngram in cut.spelled(text)])
        found.append(minhash.hashvalues)
    return np.array(found).reshape(len(texts), number).T


@given(
    TEXTS,
    st.sampled_from([Cut(), Cut("word", (2,)), Cut("word", (1, 2))]),
    st.sampled_from(["affine32", "legacy"]),
    st.integers(1, 20),
)
def test_every_bit_is_that_of_datasketch(texts: list[str], cut: Cut, scheme: Scheme, number: int) -> None:
    found = signatures(*sha1_shingles(texts, cut), number, number, scheme)
    assert (found == theirs(texts, cut, number, scheme)).all()


@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
def test_sets_of_all_sizes_and_their_first_permutations(scheme: Scheme) -> None:
    noise = np.random.Generator(np.random.Philox(1))
    texts = ["".join(map(chr, noise.integers(32, 500, size))) for size in [*range(60), 700, 5_000]]
    expected = theirs(texts, Cut(), 128, scheme)
    assert (signatures(*sha1_shingles(texts, Cut()), 128, 91, scheme) == expected[:91]).all()
    assert (expected[:, 0] == LARGEST).all()


def test_matrices_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.Generator(np.random.Philox(2))
    counts = noise.integers(0, 40, 200)
    hashes = noise.integers(0, 2**32, counts.sum(), dtype=np.uint32)
    whole = signatures(hashes, counts, 16, 16)
    monkeypatch.setattr(module, "CELLS", 30)
    assert (signatures(hashes, counts, 16, 16) == whole).all()


def test_agreement_estimates_the_jaccard_index() -> None:
    common, own = np.arange(60, dtype=np.uint32), np.arange(1_000, 1_040, dtype=np.uint32)
    sets = np.concatenate([common, own[:20], common, own[20:]])  # 60 of 100 are common
    both = signatures(sets, np.array([80, 80]), 2_000, 2_000)
    assert (both[0::1, 0] == both[:, 1]).mean() == pytest.approx(0.6, abs=4 * np.sqrt(0.6 * 0.4 / 2_000))
