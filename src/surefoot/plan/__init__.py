"""`surefoot plan`: what a run would take of the memory, whether that fits, and what would make it fit.

`gather` turns names into numbers without loading a weight, `changes` looks for the smallest change that fits, `page`
shows it, `command` is the command.
"""
