"""First-stage retrieval: BM25, random candidates and lists from elsewhere."""
