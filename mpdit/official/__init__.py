"""Runs of the official map-dit code."""
