"""A run's models for other programs and other machines: one form a file, and a table of them."""
