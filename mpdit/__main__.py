"""``python -m mpdit COMMAND``: the same as ``mpdit COMMAND``."""

from mpdit.commandline.door import main

if __name__ == "__main__":
    main()
