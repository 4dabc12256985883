"""What DuckDB says of SQL, and what this package says of DuckDB's functions."""
