"""Readers under mutated input: a value or the project's typed error, in bounded time and memory."""
