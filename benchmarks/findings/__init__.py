"""Experiments that chapters report, recorded as JSON: ``python -m benchmarks.findings.NAME`` runs one again."""
