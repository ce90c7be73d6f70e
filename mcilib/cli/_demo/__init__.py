"""The rooms of `mcilib demo`: one run, its child processes, the hands on its virtual display, its table."""
