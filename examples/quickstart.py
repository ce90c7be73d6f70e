"""Records your pointer and keys into a folder until Enter, and reads them back. Needs no receiver."""

from mcilib import Collector, Grant, KeyboardSource, PointerSource, Reader

grant = Grant.ask(operator="Example Lab", purpose="to try mcilib", scopes=["pointer", "keys"])
with Collector(sources=[PointerSource(), KeyboardSource()], grant=grant, state_dir="mcilib-state"):
    input("Recording. Move, click and type; Enter stops. ")

for event in Reader("mcilib-state/spool").events():
    print(event)
