"""What is trained on: the data sets as arrays, latent stores, and batches of them.

Nothing is imported here, so that `mpdit.data.datasets` can be asked what is there without torch.
"""
