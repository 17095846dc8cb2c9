"""Write a recipe's curated shards and stop there: `ray job submit --working-dir . -- python -m jobs.export RECIPE`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["export"]
    main()
