"""Pictures and pages about runs: tables and arrays in, files out."""
