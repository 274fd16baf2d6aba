"""Studies: a grid of runs that is done once, and the table of a paper that is made from it."""
