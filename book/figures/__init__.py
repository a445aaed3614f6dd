"""Code behind the figures of the book; pages import it, the library does not."""
