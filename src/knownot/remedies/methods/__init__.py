"""One file per remedy, named as in the table."""
