"""The commands of `sslcourse`, one file each with `run(argv) -> int | None`. See `sslcourse.cli`."""
