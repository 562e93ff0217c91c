"""Pages to look at: what they show is gathered here from files, and drawn in `cellflow.report.pages`."""
