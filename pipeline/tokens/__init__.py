"""Token ids on disk, and pairs made from them."""
