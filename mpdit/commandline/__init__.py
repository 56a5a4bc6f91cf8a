"""The command line: one row a command, one parser, help and completion made from the rows.

``mpdit COMMAND``, ``launch.py COMMAND`` and ``python -m mpdit COMMAND`` are the same. No module of
this package imports a command's own module before the command is run: the help appears at once.
"""
