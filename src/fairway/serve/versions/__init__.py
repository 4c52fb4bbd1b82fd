"""Which versions of which models serve: looked for, loaded, published, dropped."""
