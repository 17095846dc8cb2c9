"""Converts a head that PyTorch saved to the safetensors that `linear_head` and `mlp_head` read.

python -m jobs.convert_head IN.pth OUT.safetensors [--hidden relu] [--activation sigmoid]
"""

import argparse
import sys
from pathlib import Path

from schemas.errors import CuveeError
from stages.alignment.heads.convert import convert_head
from stages.alignment.heads.weights import ACTIVATIONS, HIDDEN


def main() -> int:
    """Parse, convert, report; 2 where the file is refused."""
    parser = argparse.ArgumentParser(description="Convert a head from .pth to safetensors.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--hidden", choices=HIDDEN, help="what follows every layer but the last of an unknown head")
    parser.add_argument("--activation", choices=ACTIVATIONS, help="what follows the last layer")
    asked = parser.parse_args()
    try:
        head = convert_head(asked.source, asked.target, hidden=asked.hidden, activation=asked.activation)
    except (CuveeError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    kind = "linear_head" if len(head.layers) == 1 else "mlp_head"
    print(f"{asked.target}: {kind}, {head.width} numbers in, {head.outputs} out, {head.activation}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
