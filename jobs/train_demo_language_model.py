"""Trains the demo's language model and writes it where the demo finds it: about 8 minutes on one core.

python -m jobs.train_demo_language_model [--out FOLDER] [--seed 0] [--documents 150000]
"""

import argparse
from pathlib import Path

import pipeline.demo
from pipeline.demo.language_model import Schedule, train_language_model


def main() -> None:
    """Parse, train, report."""
    parser = argparse.ArgumentParser(description="Train the demo's language model.")
    parser.add_argument("--out", type=Path, default=Path(pipeline.demo.__file__).parent / "models" / "language_model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--documents", type=int, default=Schedule.documents)
    arguments = parser.parse_args()
    train_language_model(arguments.out, arguments.seed, Schedule(arguments.documents))
    print(arguments.out)


if __name__ == "__main__":
    main()
