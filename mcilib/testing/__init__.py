"""For tests of code that uses mcilib: fakes of every seam, conformance checks, a virtual display.

- `mcilib.testing.fakes`: `FakeSource`, `ListSink`, `MemorySpool`, `FakeTransport`, `ManualClock`, `example_grant`,
  `example_batch`.
- `mcilib.testing.conformance`: `check_source`, `check_sink`, `check_spool`, `check_control`,
  `check_transport` raise `AssertionError` where an implementation breaks the promise of its seam.
- `mcilib.testing.plugin`: a pytest fixture `mcilib_recording`; put
  `pytest_plugins = ["mcilib.testing.plugin"]` into your conftest.py.
- `mcilib.testing.xvfb`: `VirtualDisplay`, a real X server with injected input (Linux, needs Xvfb).
"""
