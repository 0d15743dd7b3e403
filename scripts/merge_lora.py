"""The first draft's `scripts/merge_lora.py`: the same as `honing merge`.

python scripts/merge_lora.py [RUN] [--output DIR] [--dtype TYPE] [--gguf TYPE]
"""

import sys

from honing.cli import main

DEFAULT_RUN = "outputs"

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-") or "=" in arguments[0]:
        arguments = [DEFAULT_RUN, *arguments]
    sys.exit(main(["merge", *arguments]))
