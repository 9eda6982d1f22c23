"""The latency of a batch, l(b) = alpha + beta*b, fitted online.

Recursive least squares with forgetting (Ljung, System Identification, 11.2), two parameters, no matrices kept but
the 2x2 covariance. Negative coefficients are never reported: a batch takes time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class LatencyFit:
    """l(b) = alpha + beta*b in seconds, b in rows (of the bucket, since padding is computed too).

    forgetting: weight of the past per observation; 0.98 remembers about 50 batches.
    """

    alpha_s: float = 0.0
    beta_s: float = 0.0
    observations: int = 0
    forgetting: float = 0.98
    _p00: float = 1e6
    _p01: float = 0.0
    _p11: float = 1e6
    _a: float = 0.0
    _b: float = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Take one batch of `rows` rows that ran `seconds`."""
        k0 = self._p00 + self._p01 * rows
        k1 = self._p01 + self._p11 * rows
        scale = self.forgetting + k0 + k1 * rows
        k0, k1 = k0 / scale, k1 / scale
        error = seconds - self._a - self._b * rows
        self._a += k0 * error
        self._b += k1 * error
        r0 = self._p00 + self._p01 * rows
        r1 = self._p01 + self._p11 * rows
        # With batches of one size only, the covariance grows without bound along the direction never seen.
        self._p00 = min((self._p00 - k0 * r0) / self.forgetting, 1e6)
        self._p11 = min((self._p11 - k1 * r1) / self.forgetting, 1e6)
        limit = (self._p00 * self._p11) ** 0.5
        self._p01 = max(-limit, min((self._p01 - k0 * r1) / self.forgetting, limit))
        self.observations += 1
        self._project(rows, seconds)

    def _project(self, rows: int, seconds: float) -> None:
        if self._a >= 0 and self._b >= 0:
            self.alpha_s, self.beta_s = self._a, self._b
        elif self._b < 0:
            self.alpha_s, self.beta_s = max(seconds, 0.0), 0.0
        else:
            self.alpha_s, self.beta_s = 0.0, seconds / rows

    def predict_s(self, rows: int) -> float:
        """Predicted seconds of a batch of `rows`; 0 before the first observation."""
        return self.alpha_s + self.beta_s * rows
