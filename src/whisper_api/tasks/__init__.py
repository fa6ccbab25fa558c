"""Durable tasks: see ``service``; ``workflow`` is the sequence of steps."""
