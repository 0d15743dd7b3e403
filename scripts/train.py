"""The first draft's `scripts/train.py`: the same as `honing train`.

python scripts/train.py [CONFIG] [key=value ...] [--resume] [--overwrite]
"""

import sys
from pathlib import Path

from honing.cli import main

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "first_draft.yaml"

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-") or "=" in arguments[0]:
        arguments = [str(DEFAULT_CONFIG), *arguments]
    sys.exit(main(["train", *arguments]))
