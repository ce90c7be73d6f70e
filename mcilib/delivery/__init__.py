"""From a sealed batch to a receipt: `spool` keeps, `uploader` sends, `http` is one attempt, `retry` decides.

Each part is usable alone. Nothing here knows what is inside a batch.
"""
