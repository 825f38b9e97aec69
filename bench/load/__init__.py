"""Load: a receiving world (sink), a sender to measure it with (inject), and runs that put the gateway between them.

The sink's side (``world``, ``session``, ``ledger``, ``timelog``, ``sink``) imports nothing from ``gateway/``: its
ledger is evidence against the gateway's books only while it shares no code with them.
"""
