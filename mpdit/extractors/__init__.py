"""The small classifiers shipped with the package, in whose features distances are taken."""
