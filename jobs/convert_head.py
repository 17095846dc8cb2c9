"""Converts a head that PyTorch saved, or learned prompts that numpy saved, to the safetensors that stages read.

python -m jobs.convert_head IN.pth OUT.safetensors [--hidden relu] [--activation sigmoid]
python -m jobs.convert_head IN.npy OUT.safetensors --names harmless harmful
"""

import argparse
import sys
from pathlib import Path

from pipeline.sidecars import replacing
from schemas.errors import CuveeError
from stages.alignment.concepts.learned import convert_prompts
from stages.alignment.heads.convert import convert_head
from stages.alignment.heads.weights import ACTIVATIONS, HIDDEN


def main() -> int:
    """Parse, convert, report; 2 where the file is refused."""
    parser = argparse.ArgumentParser(description="Convert a head or prompts to safetensors.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--hidden", choices=HIDDEN, help="what follows every layer but the last of an unknown head")
    parser.add_argument("--activation", choices=ACTIVATIONS, help="what follows the last layer")
    parser.add_argument("--names", nargs="+", help="concepts whose prompts are the rows of a .npy, for `concepts`")
    asked = parser.parse_args()
    try:
        if not asked.source.is_file():
            raise CuveeError(f"{str(asked.source)!r} is not there; name a .pth of a head or a .npy of prompts")
        with replacing(asked.target) as written:
            if asked.names:
                convert_prompts(asked.source, written, asked.names)
            else:
                head = convert_head(asked.source, written, hidden=asked.hidden, activation=asked.activation)
    except CuveeError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    if asked.names:
        print(f"{asked.target}: learned prompts of {', '.join(asked.names)}")
        return 0
    kind = "linear_head" if len(head.layers) == 1 else "mlp_head"
    print(f"{asked.target}: {kind}, {head.width} numbers in, {head.outputs} out, {head.activation}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
