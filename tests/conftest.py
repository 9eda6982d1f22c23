"""What every test shares: nothing but the rule that a missing server is never silently fine in CI."""
