"""Evidence: signed statements of what was made from what, whose they are, and whether they still hold.

A statement is an in-toto Statement v1 in a DSSE envelope. It names what it speaks of by sha256, so it can be checked by
whoever has the bytes, without a network and without believing the place they lie in.
"""
