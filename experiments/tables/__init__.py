"""The papers' tables: each function returns a Study, and `retfound table NAME` makes its runs and its table."""
