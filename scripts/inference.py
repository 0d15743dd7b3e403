"""The first draft's `scripts/inference.py`: the same as `honing generate`.

python scripts/inference.py [MODEL] [--prompt TEXT] [key=value ...]
"""

import sys

from honing.cli import main

DEFAULT_MODEL = "outputs"

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-") or "=" in arguments[0]:
        arguments = [DEFAULT_MODEL, *arguments]
    sys.exit(main(["generate", *arguments]))
