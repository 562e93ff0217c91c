"""A run as a dataset with a notebook."""
