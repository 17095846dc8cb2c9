"""Runs `data-selection` on the files it is asked for; started by bench/dsir.py, never by hand.

It runs in an environment of its own: data-selection==1.0.3, nltk==3.9.1 (nltk 3.10 counts tokens differently and its
tokenizer does not survive the package's worker processes). Reads one JSON job per line, answers with one JSON line.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from data_selection import HashedNgramDSIR  # type: ignore[import-not-found, import-untyped, unused-ignore]


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Log weights of `pool` for `target` (JSONL files with `text`), the seconds they took, and what is drawn.

    A list of targets is taken apart (`separate_targets`), with `proportions` or those of their n-grams.
    """
    several = isinstance(job["target"], list)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        dsir = HashedNgramDSIR(
            [job["pool"]],
            job["target"] if several else [job["target"]],
            folder,
            num_proc=1,
            min_example_length=job["min_example_length"],
            separate_targets=several,
            target_proportions=job.get("proportions"),
        )
        dsir.fit_importance_estimator(num_tokens_to_fit="all")
        dsir.compute_importance_weights()
        seconds = time.process_time() - began
        weights = np.load(dsir.log_importance_weights_dir / "0.npy")
        lengths = np.load(dsir.perexample_metadata_dir / "0.npy")
        answer = {"seconds": seconds, "log_weights": weights.tolist(), "lengths": lengths.tolist()}
        if several:
            answer["proportions"] = dsir.target_proportions.tolist()
        if "noise" in job:
            answer["selected"] = drawn(dsir, job, Path(folder) / "drawn")
    return answer


def drawn(dsir: Any, job: dict[str, Any], folder: Path) -> list[int]:
    """Line numbers that its resampler draws when its Gumbel noise is `noise`, one number per eligible line.

    Of several targets each has its own; the lines that earlier ones drew take none of it.
    """
    original = np.random.gumbel
    drawn_so_far = iter(job["noise"] if isinstance(job["target"], list) else [job["noise"]])
    np.random.gumbel = lambda size: np.asarray(next(drawn_so_far))[: size[0]]  # type: ignore[assignment]
    try:
        dsir.resample(str(folder), job["samples"], cache_dir=str(folder) + "-cache")
    finally:
        np.random.gumbel = original
    numbers = {line: number for number, line in enumerate(Path(job["pool"]).read_text().splitlines())}
    return sorted(numbers[line] for line in (folder / "0.jsonl").read_text().splitlines())


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
