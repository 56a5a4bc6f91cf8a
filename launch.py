#!/usr/bin/env python3
"""The command line of a checkout: ``launch.py COMMAND`` is ``mpdit COMMAND``."""

from mpdit.commandline.door import main

if __name__ == "__main__":
    main()
