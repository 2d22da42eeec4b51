"""Examples: not part of the product, and nothing in the product imports them."""
