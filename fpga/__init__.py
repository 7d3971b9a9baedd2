"""How a design gets on a board: board tops, open-source build flows, the host driver."""
