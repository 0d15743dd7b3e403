"""The first draft's `scripts/evaluate.py`: the same as `honing evaluate`.

python scripts/evaluate.py [RUN] [--checkpoint NAME] [key=value ...]
"""

import sys

from honing.cli import main

DEFAULT_RUN = "outputs"

if __name__ == "__main__":
    arguments = sys.argv[1:]
    unnamed = not arguments or arguments[0].startswith("-") or "=" in arguments[0]
    if unnamed and "--predictions" not in arguments:
        arguments = [DEFAULT_RUN, *arguments]
    sys.exit(main(["evaluate", *arguments]))
