"""Where people and hands are in a picture."""
