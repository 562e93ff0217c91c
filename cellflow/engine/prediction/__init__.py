"""`cellflow predict` and `cellflow ensemble`: images of any number, into a folder."""
