"""Images too large to be held: segmented block by block, with the cells that the whole image would give."""
