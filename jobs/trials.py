"""Run pilots on designed mixtures of a recipe's sources: what is finished is kept, so a schedule may repeat it.

`ray job submit --working-dir . -- python -m jobs.trials RECIPE`
"""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["trials", "--json"]
    main()
