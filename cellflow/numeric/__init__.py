"""Arrays in, arrays out: flows, labels, runs, scores, tiles. Import the submodule that is needed.

Nothing is imported here, so that ``import cellflow`` does not pay for numba.
"""
