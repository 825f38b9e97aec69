"""The way in, whatever door it is: whose key, which sending domains, the store's intake; and the SMTP door (RFC 6409).

Owns what both doors need (`auth`, `senders`, `desk`) and the one that speaks SMTP (`door`, `conversation`, `letter`, `dots`).
Must not know HTTP: that door is `gateway/api`.
"""
