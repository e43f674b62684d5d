"""Incremental work: steps with an identity, a store that keeps what they made, a loop that runs the rest.

Nothing here knows of language models. A step names its function as "module:function"; the function gets
folders in and a folder out (see `sabir.engine.job`).
"""
