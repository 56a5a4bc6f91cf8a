"""``python -m mpdit.ema RUN --std 0.03``: averages of other widths."""

import sys

from mpdit.ema.posthoc import main

if __name__ == "__main__":
    sys.exit(main())
