"""Programs to read and to copy. Each runs by itself: `python examples/chat_room.py`."""
