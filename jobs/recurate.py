"""Curate again on a schedule: only what is new is computed, and one JSON line goes to stdout for the scheduler.

`ray job submit --working-dir . -- python -m jobs.recurate RECIPE`
"""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["run", "--json"]
    main()
