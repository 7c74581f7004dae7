"""Run the tries of one context, and print their numbers."""

import argparse
import json
import random
import sys

from tests.delivery_trials.contexts import CONTEXTS
from tests.delivery_trials.tries import Trials


def main() -> None:
    """Run the tries of a context."""
    parser = argparse.ArgumentParser(prog="python -m tests.delivery_trials")
    parser.add_argument("context", choices=CONTEXTS)
    parser.add_argument("dsn")
    parser.add_argument("--tries", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", default="0", help="of the random moments")
    options = parser.parse_args()
    context = CONTEXTS[options.context]()
    rng = random.Random(f"{options.seed}-{options.context}")
    trials = Trials(context.classes, context.way, options.dsn, options.tries, rng)
    context.run(trials)
    json.dump({"cells": trials.cells, "problems": trials.problems}, sys.stdout)


if __name__ == "__main__":
    main()
