"""The script one would write without cuvee: open_clip over a webdataset DataLoader, as in both projects' READMEs.

    python bench/scoring_peer.py --model DIR --workers 2 --threads 1 SHARD...

Prints one JSON line: pairs, seconds from the loaded model on, seconds from the start of the process on,
CPU seconds of both, sum of scores.
"""

import argparse
import json
import resource
import time

BEGAN = time.perf_counter()

import open_clip  # noqa: E402  imports are part of what a run costs
import torch  # noqa: E402
import webdataset as wds  # noqa: E402


def cpu_seconds() -> float:
    """CPU time of this process and of the loader processes that have ended."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("shards", nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{options.model}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{options.model}")
    model.eval()
    loaded, spent = time.perf_counter(), cpu_seconds()
    dataset = (
        wds.WebDataset(options.shards, shardshuffle=False)
        .decode("pilrgb")
        .to_tuple("jpg;png", "txt")
        .map_tuple(preprocess, lambda caption: caption)
        .batched(options.batch)
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=options.workers)
    scores: list[float] = []
    with torch.inference_mode():
        for pixels, captions in loader:
            images = model.encode_image(pixels, normalize=True)
            texts = model.encode_text(tokenize(list(captions)), normalize=True)
            scores += (images * texts).sum(dim=1).tolist()
    done = time.perf_counter()
    del loader
    facts = {"pairs": len(scores), "seconds": done - loaded, "total": done - BEGAN, "sum": sum(scores)}
    print(json.dumps(facts | {"cpu": cpu_seconds() - spent}))


if __name__ == "__main__":
    main()
