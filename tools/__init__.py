"""Programs that made the arrays that ship with the package. Nothing in the package imports them."""
