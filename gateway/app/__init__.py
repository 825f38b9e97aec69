"""The composition root: which processes make a gateway, how they are started, watched and ended.

Owns process life and nothing else: what a role does is in its own package. One supervisor (`run`) prepares the database
(`database`), claims the data directory (`state`), and keeps one child process for each role (`supervisor`); a child
(`child`) reads its brief from its standard input and runs one of `roles`. Whatever was started ends with what started it
(`lifeline`).
"""
