"""How fast: token buckets, shaping rules, adaptation and quotas."""
