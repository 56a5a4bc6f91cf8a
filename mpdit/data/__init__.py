"""The training data: data sets as arrays, folders of images, and latent stores.

Nothing is imported here, so that `mpdit.data.datasets` can be imported without torch.
"""
