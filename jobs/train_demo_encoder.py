"""Trains the demo's dual encoder and writes it where the demo finds it: about 27 minutes on one core.

python -m jobs.train_demo_encoder [--out FOLDER] [--seed 0] [--scenes 60000] [--epochs 4]
"""

import argparse
from pathlib import Path

import pipeline.demo
from pipeline.demo.encoder import Schedule, train_encoder


def main() -> None:
    """Parse, train, report."""
    parser = argparse.ArgumentParser(description="Train the demo's dual encoder.")
    parser.add_argument("--out", type=Path, default=Path(pipeline.demo.__file__).parent / "models" / "encoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=Schedule.scenes)
    parser.add_argument("--epochs", type=int, default=Schedule.epochs)
    arguments = parser.parse_args()
    train_encoder(arguments.out, arguments.seed, Schedule(arguments.scenes, arguments.epochs))
    print(arguments.out)


if __name__ == "__main__":
    main()
