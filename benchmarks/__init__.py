"""Speed, as ratios: what the package does against the same thing done by hand in bare DuckDB, in one process."""
