"""The bytes: chunking, chunk store, drafts, fetching, replicating.

Contents are named by hash, so nothing here ever changes in place: a piece (a chunk or a manifest) is written once,
verified on arrival and at its first use, and told to others only when it is durable. What exists and who may see
it is decided elsewhere (`Catalogue`); who can be reached is the mesh's business.
"""
