"""Averages of the weights: in training, and of any width afterwards."""
