"""What commands print: results in, text out, a module a kind.

A text gets a table, plain values, or a result of which a Protocol says what the text needs, so that nothing of
the engine is imported here.
"""
