"""The batch format, as `docs/spec/` describes it: rows to columns, columns to a frame, frames to a body."""
