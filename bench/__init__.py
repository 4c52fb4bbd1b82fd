"""Measures what the README states; run it with `make bench`, or `python -m bench NAME …` for a part."""
