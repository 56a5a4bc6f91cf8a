"""launch.py in a process of its own, whose local and Slurm runs are the stand-in's."""

from tests.helpers import ROOT

LAUNCH = f"""\
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.helpers import stand_in
from mpdit.study import pool
pool.RUN_COMMAND = stand_in.COMMAND
import launch
launch.main()
"""
