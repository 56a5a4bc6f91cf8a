"""A conditioning part that scales by eˢ, and so never turns a channel's sign, unlike 1 + s."""

from mpdit.catalogue import part


@part("log_scale", does="x eˢ", source="this file")
def log_scale(x, s):
    """x (batch, tokens, width), s (batch, 1, width), which is zero at first."""
    return x * s.exp()
