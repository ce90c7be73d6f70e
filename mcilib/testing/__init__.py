"""For tests of code that uses mcilib: fakes of every seam, conformance checks, a virtual display, an emulated laptop.

- `mcilib.testing.fakes`: `FakeSource`, `FakeResources`, `ListSink`, `MemorySpool`, `FakeTransport`, `ManualClock`,
  `example_grant`, `example_batch`.
- `mcilib.testing.conformance`: `check_source`, `check_sink`, `check_spool`, `check_control`,
  `check_resources`, `check_transport` raise `AssertionError` where an implementation breaks the promise of its seam.
- `mcilib.testing.plugin`: a pytest fixture `mcilib_recording`; put
  `pytest_plugins = ["mcilib.testing.plugin"]` into your conftest.py.
- `mcilib.testing.xvfb`: `VirtualDisplay`, a real X server with injected input (Linux, needs Xvfb).
- `mcilib.testing.laptop`: `EmulatedLaptop`, a machine with a battery, a mains adapter, a network and a power
  profile, seen through the system's own files and services (Linux, needs umockdev, upower and python3-dbusmock).
"""
