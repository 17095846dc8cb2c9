"""`minhash_captions` beside a datasketch loop: CPU seconds for the same captions, what each finds, and how ours grows.

    OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 python -m bench.minhash [--runs 5] [--grow 10000 100000] [--shared SHARED]

20,000 captions of 12 to 60 made-up words, Zipf-distributed: 16,000 are mutually far apart, 4,000 are copies of one of
them each, with so many words replaced that the Jaccard indices of the pairs' word bigrams spread over 0.5 to 1. The
loop is `MinHash.update_batch`, `MinHashLSH.query`, `insert` if nothing was found; what the query finds is dropped. It
runs as its documentation writes it, `MinHash(num_perm=128)`, and with one set of permutations given to all. Each side
cuts captions into word bigrams and into character trigrams, and is held against the loop that cuts alike. All go
through the captions in one order, in one process with one thread, rounds alternate.
Growth: captions of 4 to 19 words, a fifth of them copies with one word replaced, each size in a process of its own.
With SHARED also captions recombined from real ones, word by word as they follow each other there: web alt-texts, and
captions written by a model, which are like each other far more often. Of 10,000 recombined captions 502 and 3,448 pairs
share a band, of 10,000 real ones 212 and 6,688. A million captions take minutes and have to be asked for.
"""

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.duplicates.minhash_captions import MinHashCaptions
from stages.near_texts import Cut, jaccards
from stages.rule import Context

CAPTIONS, COPIES = 20_000, 4_000
THRESHOLD, PERMUTATIONS = 0.7, 128
BIGRAMS, TRIGRAMS = Cut("word", (2,)), Cut("char", (3,))
CUTS = {"word bigrams": BIGRAMS, "character trigrams": TRIGRAMS}
VOCABULARY = 50_000
LOOP, SHARING = "datasketch loop", "the same, permutations shared"
RANGES = ((0.8, 0.9), (0.8, 1.01), (0.9, 1.01), (0.7, 0.8))


class Writer:
    """Writes captions of made-up words, frequent ones first."""

    def __init__(self, seed: int) -> None:
        self.noise = np.random.Generator(np.random.Philox(seed))
        letters, lengths = list("etaoinshrdlucmfwypvbgk"), self.noise.integers(2, 11, VOCABULARY)
        self.words = np.array(["".join(self.noise.choice(letters, length)) for length in lengths])
        frequency = 1 / np.arange(10, VOCABULARY + 10)
        self.up_to = np.cumsum(frequency / frequency.sum())

    def drawn(self, n: int) -> list[str]:
        """Words, as often as they are in the language."""
        places = np.searchsorted(self.up_to, self.noise.random(n))
        return list(self.words[np.minimum(places, VOCABULARY - 1)])

    def captions(self, n: int, shortest: int, longest: int) -> list[list[str]]:
        """Their words; lengths are uniform."""
        lengths = self.noise.integers(shortest, longest + 1, n)
        return [words.tolist() for words in np.split(np.array(self.drawn(int(lengths.sum()))), np.cumsum(lengths)[:-1])]

    def copy(self, words: list[str], replaced: int) -> list[str]:
        """The same with other words in so many places."""
        made = list(words)
        for place in self.noise.choice(len(words), replaced, replace=False):
            made[place] = self.drawn(1)[0]
        return made


def planted() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Captions, and the places of the pairs that were planted, in a random order."""
    writer = Writer(1)
    texts = writer.captions(CAPTIONS - COPIES, 12, 60)
    for words in texts[:COPIES]:
        index = writer.noise.uniform(0.5, 1)  # k words replaced leave about n - 2 k of n bigrams in common
        texts.append(writer.copy(words, round(len(words) * (1 - index) / (1 + index) / 2)))
    order = writer.noise.permutation(CAPTIONS)
    place = np.argsort(order)
    pairs = np.sort(np.stack([place[:COPIES], place[CAPTIONS - COPIES :]]), axis=0)
    return [" ".join(texts[at]) for at in order], pairs[0], pairs[1]


def words_of(text: str) -> list[bytes]:
    """Word bigrams as a user of datasketch cuts them."""
    return [f"{a} {b}".encode() for a, b in itertools.pairwise(text.split())]


def letters_of(text: str) -> list[bytes]:
    """Character trigrams likewise."""
    return [text[at : at + 3].encode() for at in range(len(text) - 2)]


def loop(texts: list[str], cut: Cut, *, share: bool) -> tuple[float, set[int]]:
    """CPU seconds and places dropped by datasketch; `share` gives all signatures one set of permutations."""
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    shared = MinHash(PERMUTATIONS).permutations if share else None
    ngrams = words_of if cut == BIGRAMS else letters_of
    dropped = set()
    began = time.process_time()
    for place, text in enumerate(texts):
        minhash = MinHash(PERMUTATIONS, permutations=shared, scheme="affine32")
        minhash.update_batch(ngrams(text))
        if lsh.query(minhash):
            dropped.add(place)
        else:
            lsh.insert(place, minhash, check_duplication=False)
    return time.process_time() - began, dropped


def ours(texts: list[str], **settings: Any) -> tuple[float, set[int]]:
    """The same by the rule, from captions to its verdict with the evidence."""
    rows = pl.DataFrame({"uid": [f"{at:07d}" for at in range(len(texts))], "source": "s", "caption": texts})
    rule = MinHashCaptions.model_validate({"threshold": THRESHOLD, **settings})
    began = time.process_time()
    verdict = rule.judge(rows.lazy(), Context(0))
    return time.process_time() - began, set(verdict.dropped["uid"].cast(pl.Int64))


def quality(dropped: set[int], first: np.ndarray, second: np.ndarray, index: np.ndarray) -> list[str]:
    """Recall per range of J, and the share of drops whose planted partner reaches the threshold."""
    gone = np.array([one in dropped or other in dropped for one, other in zip(first, second, strict=True)])
    recalls = [f"{gone[(index >= low) & (index < high)].mean():.3f}" for low, high in RANGES]
    partner = dict(zip([*first, *second], [*index, *index], strict=True))
    return [*recalls, f"{np.mean([partner.get(place, 0) >= THRESHOLD for place in dropped]):.3f}"]


def compare(runs: int) -> None:
    """One line of Markdown per method."""
    texts, first, second = planted()
    index = {name: jaccards(texts, first, second, cut) for name, cut in CUTS.items()}
    methods = {(cut, name): method for cut in CUTS for name, method in methods_of(texts, CUTS[cut]).items()}
    for run in methods.values():
        run()  # imports, permutations
    taken: dict[tuple[str, str], list[float]] = {name: [] for name in methods}
    found = {}
    for _ in range(runs):
        for name, run in methods.items():
            seconds, found[name] = run()
            taken[name].append(seconds)
    middle = {name: statistics.median(each) for name, each in taken.items()}
    heads = ("n-grams", "method", "CPU s", "captions/s", "times as fast as the loop", "as the sharing loop")
    print(f"| {' | '.join(heads)} | J 0.8-0.9 | J >= 0.8 | J >= 0.9 | J 0.7-0.8 | precision |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for (cut, method), seconds in middle.items():
        ratios = [f"{middle[cut, peer] / seconds:.1f}" for peer in (LOOP, SHARING)]
        shares = quality(found[cut, method], first, second, index[cut])
        numbers = [f"{seconds:.2f}", f"{len(texts) / seconds:,.0f}", *ratios, *shares]
        print(f"| {cut} | {method} | {' | '.join(numbers)} |")


def methods_of(texts: list[str], cut: Cut) -> dict[str, Callable[[], tuple[float, set[int]]]]:
    """What is timed, for one way to cut."""
    given: dict[str, Any] = {"ngrams": cut.unit, "sizes": cut.sizes}
    return {
        LOOP: lambda: loop(texts, cut, share=False),
        SHARING: lambda: loop(texts, cut, share=True),
        "`minhash_captions`": lambda: ours(texts, **given),
        "the same, `compat: affine32`": lambda: ours(texts, compat="affine32", **given),
    }


def made_up(n: int) -> list[str]:
    """n captions, a fifth of them near copies."""
    writer = Writer(2)
    texts = writer.captions(n - n // 5, 4, 19)
    texts += [writer.copy(texts[at], 1) for at in writer.noise.integers(0, len(texts), n // 5)]
    return [" ".join(texts[at]) for at in writer.noise.permutation(n)]


class Recombined:
    """A chain of words of the first order, with the frequencies of real captions."""

    def __init__(self, captions: list[str]) -> None:
        self.following: dict[str, list[str]] = {}
        for caption in captions:
            for word, following in itertools.pairwise(["", *caption.split(), ""]):
                self.following.setdefault(word, []).append(following)

    def __call__(self, n: int) -> list[str]:
        """n captions of 61 words at most."""
        drawn = random.Random(1)
        return [" ".join(itertools.islice(self._words(drawn), 61)) for _ in range(n)]

    def _words(self, drawn: random.Random) -> Iterator[str]:
        word = drawn.choice(self.following[""])
        while word:
            yield word
            word = drawn.choice(self.following[word])


def pools(shared: Path | None) -> dict[str, Callable[[int], list[str]]]:
    """By name, what makes n captions."""
    if shared is None:
        return {"made up": made_up}
    alt_texts = pl.read_parquet(shared / "data/text/web_alt_text_10k.parquet")["TEXT"].drop_nulls().to_list()
    lines = (shared / "data/text/caption_triples_10k.jsonl").read_text().splitlines()
    by_model = [json.loads(line)["laion_coco"] for line in lines]
    return {"made up": made_up, "like alt-texts": Recombined(alt_texts), "like a model's": Recombined(by_model)}


def write_table(path: Path, captions: list[str]) -> None:
    """Captions as a score table."""
    uids = [f"{at:032d}" for at in range(len(captions))]
    pl.DataFrame({"uid": uids, "source": "s", "caption": captions}).write_parquet(path)


def judge_file(path: Path) -> dict[str, float]:
    """CPU seconds of the rule over a table on disk, and this process's peak memory."""
    warm = pl.LazyFrame({"uid": ["0"], "source": ["s"], "caption": ["a cat"]})
    rule = MinHashCaptions.model_validate({})
    rule.judge(warm, Context(0))
    began = time.process_time()
    verdict = rule.judge(pl.scan_parquet(path), Context(0))
    seconds = time.process_time() - began
    # Not ru_maxrss: it is handed on from the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return {"seconds": seconds, "peak_mb": peak, "dropped": len(verdict.dropped)}


def grow(make: dict[str, Callable[[int], list[str]]], sizes: list[int], runs: int) -> None:
    """One line of Markdown per kind and size, with the exponent of the growth since the size before."""
    heads = ("captions", "number", "CPU s", "captions/s", "peak MB of the process", "dropped", "exponent")
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for kind, captions in make.items():
        before: tuple[int, float] | None = None
        for n in sizes:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "captions.parquet"
                write_table(path, captions(n))
                command = [sys.executable, "-m", "bench.minhash", "--judge", str(path)]
                told = [json.loads(subprocess.run(command, check=True, stdout=-1).stdout) for _ in range(runs)]
            seconds = statistics.median(each["seconds"] for each in told)
            peak = max(each["peak_mb"] for each in told)
            exponent = f"{log10(seconds / before[1]) / log10(n / before[0]):.2f}" if before else ""
            numbers = [f"{n:,}", f"{seconds:.2f}", f"{n / seconds:,.0f}", f"{peak:,.0f}", f"{told[0]['dropped']:,}"]
            print(f"| {kind} | {' | '.join(numbers)} | {exponent} |")
            before = n, seconds


def main() -> None:
    """Compare, then grow."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--grow", type=int, nargs="*", default=[10_000, 100_000])
    options.add_argument("--shared", type=Path, help="the folder with the real captions")
    options.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.judge:
        print(json.dumps(judge_file(given.judge)))
        return
    if given.runs:
        compare(given.runs)
    if given.grow:
        grow(pools(given.shared), given.grow, max(1, min(given.runs, 3)))


if __name__ == "__main__":
    main()
