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


def test_the_table_of_keysyms(xserver):
    from pynput._util.xorg_keysyms import DEAD_KEYS, KEYSYMS, SYMBOLS

    assert SYMBOLS[KEYSYMS[0x01B3]][1] == "ł"
    assert SYMBOLS[KEYSYMS[0x06CA]][1] == "й"
    assert len(DEAD_KEYS) > 10


def test_the_socket_of_a_display(xserver):
    from Xlib.display import Display

    display = Display()
    assert display.display.socket.fileno() == display.fileno()
    display.close()
