"""``python -m mpdit.official convert OLD NEW``: an official run as one of ours."""

import sys

from mpdit.official.conversion import main

if __name__ == "__main__":
    sys.exit(main())
