"""A live page of a running study: states of its runs, curves, samples, and verdicts so far.

`livestudy.LiveStudy` reads what has changed on disk since its last update. `server.serve` serves
the page on this machine, and `livepage.renew` writes it as a file.
"""
