"""Curate a pool: `ray job submit --working-dir . -- python -m jobs.curate RECIPE [--until PART]`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["run"]
    main()
