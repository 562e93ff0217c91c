"""From an image to labels: the one path that evaluation, OOF, ensembles and Python share."""
