"""Seeds as a pure function of what they are for, so that nothing has to remember a stream of random numbers."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a run's seed, a purpose and any counters; equal parts give equal seeds on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
