"""Writers of the training formats of other libraries."""
