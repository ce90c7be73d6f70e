"""The private attributes of pynput and python-xlib that the sources lean on. A new release that moves them
fails here, by name, and not in a participant's session."""

from __future__ import annotations

import inspect


def test_what_the_listeners_are_built_on(xserver):
    from pynput.keyboard import Listener as Keys
    from pynput.mouse import Listener as Mouse

    for listener in (Keys, Mouse):
        assert callable(listener._handler)
        assert list(inspect.signature(listener._handle_message).parameters)[1:] == (
            ["display", "event", "injected"] if listener is Keys else ["dummy_display", "event", "injected"]
        )
        assert callable(listener._mark_ready)
        assert "_initialize" in dir(listener)
    source = inspect.getsource(Mouse._run)
    assert "_display_record" in source
    assert "_display_stop" in source
    assert "_context" in source


def test_what_narrowing_is_built_on(xserver):
    """`narrow` overwrites what pynput asks RECORD for, and asks again over its second connection."""
    from pynput._util.xorg import ListenerMixin
    from pynput.mouse import Listener as Mouse

    events = Mouse._EVENTS  # type: ignore[attr-defined]
    assert events == (4, 8)  # masks where types belong: ButtonPress to LeaveNotify, by accident with motion
    source = inspect.getsource(ListenerMixin._run)
    assert "'device_events': self._EVENTS" in source
    assert "self._display_stop = Xlib.display.Display()" in source
    assert "self._context = dm.record_create_context" in source
    assert source.index("self._context =") < source.index("record_enable_context")


def test_the_names_of_our_own_are_free(xserver):
    """What the subclasses add to a listener is neither pynput's nor that of a thread, which a listener is."""
    from pynput.keyboard import Listener as Keys
    from pynput.mouse import Listener as Mouse

    ours = ["_asking", "_recording", "_ask_again", "_trouble", "_hook_ns", "_posted"]
    ours += ["_tap", "_tap_asked", "_off_count", "_off_ns", "_switch_on"]
    assert [name for name in ours for listener in (Keys(), Mouse()) if hasattr(listener, name)] == []


def test_the_table_of_keysyms(xserver):
    from pynput._util.xorg_keysyms import DEAD_KEYS, KEYSYMS, SYMBOLS

    assert SYMBOLS[KEYSYMS[0x01B3]][1] == "ł"
    assert SYMBOLS[KEYSYMS[0x06CA]][1] == "й"
    assert len(DEAD_KEYS) > 10


def test_a_display_looks_for_extensions_and_keys_where_a_connection_says_there_are_few(xserver):
    from Xlib.display import Display

    from mcilib.sources._x11 import connect

    assert callable(Display._update_keymap)  # type: ignore[attr-defined]
    every, ours = Display(), connect()
    assert set(ours.extensions) == {"RECORD", "RANDR"} < set(every.extensions)
    assert not ours._keymap_syms
    every.close()
    ours.close()


def test_the_socket_of_a_display(xserver):
    from Xlib.display import Display

    display = Display()
    assert display.display.socket.fileno() == display.fileno()
    display.close()
