"""What one RSA-2048 signature costs here and now: the unit in which the whole way is measured.

Several batches, CPU time of this thread, the least median counts: whatever else runs on the machine can only make it more.
"""

from __future__ import annotations

import statistics
import time
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

_BATCH: Final = 10


class SignatureTimer:
    """Times signatures when asked; remembers the cheapest batch of batches."""

    def __init__(self) -> None:
        self._key = generate_private_key(public_exponent=65_537, key_size=2_048)
        self._medians: list[float] = []
        self.time()
        self._medians.clear()  # the first ones pay for the key's blinding

    def time(self, signatures: int = 200) -> float:
        """Sign so often; the median cost of one in milliseconds of CPU."""
        batches: list[float] = []
        for _ in range(max(1, signatures // _BATCH)):
            started = time.thread_time()
            for _ in range(_BATCH):
                self._key.sign(b"b" * 200, PKCS1v15(), hashes.SHA256())
            batches.append((time.thread_time() - started) * 1000 / _BATCH)
        self._medians.append(statistics.median(batches))
        return self._medians[-1]

    @property
    def least_ms(self) -> float:
        """The least median so far. Raises ValueError before the first."""
        return min(self._medians)
