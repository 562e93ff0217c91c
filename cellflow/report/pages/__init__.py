"""Pages of HTML that need no server and no network: templates, their style and scripts, what they are made of.

`page` writes them; `chart`, `table` and `picture` make what several of them show. A page has a template of
its own in ``templates/`` and, where it needs one, a script and a style in ``assets/``.
"""
