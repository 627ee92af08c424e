"""One file per published score, named as in the table."""
