"""How pods meet: announcing and finding on the local network, one-time join codes, admission, founding.

What decides here is pure (codes, the join protocol, what an announcement may say); zeroconf, SQLite and links only
carry. Must never trust a value from the network before it was checked, and never let anybody in without a record
that is durable.
"""
