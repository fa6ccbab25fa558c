"""The database's history, one revision a file; run at start by ``database.py``."""
