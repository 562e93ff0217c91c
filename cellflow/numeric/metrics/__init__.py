"""Metrics of segmentations, all from the pixels that pairs of cells share.

An image is counted once (`counts`), counts of images are summed, and every metric (`table`) is a function of
counts: of one image its value there, of the sums its pooled value.
"""
