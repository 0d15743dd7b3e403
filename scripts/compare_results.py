"""The first draft's `scripts/compare_results.py`: the same as `honing compare`.

python scripts/compare_results.py [RUN ...] [--output DIR] [--language en|ko]
"""

import sys

from honing.cli import main

DEFAULT_RUN = "outputs"

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-"):
        arguments = [DEFAULT_RUN, *arguments]
    sys.exit(main(["compare", *arguments]))
