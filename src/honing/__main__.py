"""`python -m honing` is `honing`."""

import sys

from honing.cli import main

sys.exit(main())
