"""Who is there: identities, the roster, TLS links, membership, broadcast, anti-entropy, remote calls."""
