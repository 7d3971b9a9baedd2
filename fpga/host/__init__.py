"""The host's side of a board: the serial link, the driver, and matrix products on it."""
