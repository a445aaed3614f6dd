"""Hidden checks, one file a lab. Never part of what students install."""
