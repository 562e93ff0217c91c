"""K-fold training, honest cross-validation and flow-averaged ensembles for Cellpose's U-Net."""
