"""What stands on stdout is the answer and nothing else."""

import json
import sys

from pipeline import cli


def test_what_others_print_meanwhile_stays_out_of_the_answer(capsys) -> None:
    def work(progress):
        print("(raylet) Task failed. There are 3 retries remaining.")
        return {"samples": 1}

    cli._answer(cli._with_progress(work), True, "")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"samples": 1}
    assert "(raylet)" in err
    assert sys.stdout is not sys.stderr
