"""``python -m mpdit.official convert OLD NEW``: convert an official run."""

import sys

from mpdit.commandline.door import door

if __name__ == "__main__":
    words = sys.argv[2:] if sys.argv[1:2] == ["convert"] else sys.argv[1:]
    sys.exit(door(words, "mpdit.official convert", "convert"))
