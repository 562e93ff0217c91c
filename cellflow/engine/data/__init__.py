"""From source images to a dataset with folds."""
