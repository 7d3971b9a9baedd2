"""The link between host and board: what is said (`protocol`), and the board's side of it in hardware."""
