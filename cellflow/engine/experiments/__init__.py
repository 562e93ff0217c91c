"""Several commands as one: the chain, the queue, the demo."""
