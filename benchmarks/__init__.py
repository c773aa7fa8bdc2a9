"""Where the figures of the README and the docs come from: ``python -m benchmarks.NAME [--json FILE]``."""
