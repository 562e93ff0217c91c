"""What commands print: results in, text out, a module a kind.

Another text is a function in a module here. It gets a table, plain values, or a result (where a Protocol says what
it needs of it), so that nothing of the engine is imported.
"""
