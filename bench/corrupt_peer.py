"""The loop one would write without cuvee: webdataset decodes a pool to pixels, with one of its handlers.

    python bench/corrupt_peer.py HANDLER SHARD...        HANDLER: default or warn_and_continue

Prints one JSON line: keys that came through, text of warnings, the exception that ended it, seconds.
"""

import json
import sys
import time
import warnings

import webdataset as wds


def main() -> None:
    handler = wds.warn_and_continue if sys.argv[1] == "warn_and_continue" else wds.reraise_exception
    began, kept, ended = time.perf_counter(), [], None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = (
            wds.WebDataset(sys.argv[2:], shardshuffle=False, handler=handler)
            .decode("pil", handler=handler)
            .to_tuple("__key__", "jpg", "txt", handler=handler)
        )
        try:
            for key, picture, _ in dataset:
                picture.load()
                kept.append(key)
        except Exception as error:
            ended = f"{type(error).__name__}: {error!s:.300}"
    facts = {"kept": kept, "ended": ended, "warnings": [str(one.message) for one in caught]}
    print(json.dumps(facts | {"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
