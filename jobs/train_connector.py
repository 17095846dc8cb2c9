"""Train the connector on raw, random and curated data, or on several finished selections.

`ray job submit --working-dir . -- python -m jobs.train_connector RECIPE`, or `... --compare A B ... --recipe RECIPE`
"""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["train"]
    main()
