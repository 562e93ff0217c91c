"""`cellflow train`: folds of a run, trained and evaluated."""
