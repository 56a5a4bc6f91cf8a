"""``python -m mpdit.ema RUN --std 0.03``: averages of other widths, as ``mpdit ema``."""

import sys

from mpdit.commandline.door import door

if __name__ == "__main__":
    sys.exit(door(sys.argv[1:], "mpdit.ema", "ema"))
