"""Which detection meets which labelled object."""
