"""A process that interrupts statements in one context, and counts what is lost of that.

    python -m tests.delivery_trials CONTEXT DSN [--tries N] [--seed N]

``table`` starts one for each context. Each try interrupts one statement when
the server has answered already, or at a random moment of one that ignores that it is cancelled.
Standard output gets a line of JSON: for each answer and event the numbers of a cell.
"""
